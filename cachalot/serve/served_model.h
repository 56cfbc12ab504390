// SPDX-License-Identifier: Apache-2.0
// What serving needs to know of a model beside its engine; filled in by whoever opened the files.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachalot/chat/format.h"
#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot::serve {

struct ServedModel {
  std::string name;         // shown to clients
  std::string fingerprint;  // of weights and numerics: the same text means the same answers
  std::shared_ptr<const tokenizer::Tokenizer> tokenizer;
  chat::Format format = chat::Format::kV4Preview;
  std::vector<uint32_t> stop_tokens;     // EOS and markers that end a turn
  std::optional<uint32_t> plain_prefix;  // in front of a plain completion (BOS)
  std::optional<uint32_t> think_close;   // the id of </think>
  uint32_t vocab_size = 0;
  uint32_t max_context = 0;
  bool drafts = false;    // may guess tokens and verify them (the answers are the same)
  int64_t loaded_at = 0;  // Unix seconds
};

}  // namespace cachalot::serve
