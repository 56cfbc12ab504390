// SPDX-License-Identifier: Apache-2.0
// A model directory as the commands see it: weights, tokenizer and what its files say about how it
// wants to be prompted.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/model/weights.h"
#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot::cli {

struct TextModel {
  std::string dir;
  std::shared_ptr<const model::Weights> weights;
  std::shared_ptr<const tokenizer::Tokenizer> tokenizer;
  // Put in front of a plain completion; from tokenizer_config.json's add_bos_token, else BOS, as
  // chat.md 4.11 has it for a plain completion.
  std::optional<uint32_t> plain_prefix;
  // The tokenizer has the chat markers.
  bool has_chat_tokens = false;
  // It also was trained on them, as far as its files tell: official chat checkpoints carry a
  // generation_config.json, base and small prose models do not.
  bool is_chat_model = false;
  // Ends a turn: EOS, and the markers a model emits only by mistake (chat.md 2.5).
  std::vector<uint32_t> stop_tokens;

  // Ids of text; markers in it are parsed. kInvalidArgument if the tokenizer knows ids the model
  // does not.
  Result<std::vector<uint32_t>> Encode(std::string_view text) const;
};

// LoadModelWeights and the tokenizer, with a sign of life on a terminal when it takes long.
Result<TextModel> OpenTextModel(const EngineFlags& flags, const LoadUse& use = {});

}  // namespace cachalot::cli
