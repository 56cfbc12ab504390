// SPDX-License-Identifier: Apache-2.0
// What training text looks like before it is tokens: plain text, chats, fill in the middle.
// [docs/formats/token_shards.md; chat.md 4, 4.11]
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/tokenizer/tokenizer.h"
#include "cachalot/train/token_shard.h"

namespace cachalot::train {

enum class DocumentKind : uint8_t { kText, kChat, kFill };

struct Document {
  DocumentKind kind = DocumentKind::kText;
  // kText: the text. kChat: the rendered conversation, markers and EOS included. kFill: the middle.
  std::string text;
  std::string prefix, suffix;  // kFill
};

// One line of JSONL, an object with
//   text                      plain
//   messages, tools, ...      a chat as `cachalot render` reads it, ending with an assistant's turn
//   prefix, suffix, middle    fill in the middle
// kInvalidArgument starting with `name` (file and line).
Result<Document> DocumentFromJson(std::string_view line, const std::string& name);

// Calls `take` for each document of a file: of JSONL, if its name ends with .jsonl, each line that
// is not blank; else the whole file, as text. Stops at the first error of either. `take` gets the
// bytes of the file consumed so far.
Status ForEachDocument(const std::string& path,
                       const std::function<Status(Document&&, uint64_t)>& take);

struct SampleOptions {
  // Share of plain texts that become fill in the middle, cut at two random places [V3: 0.1].
  double fill_rate = 0.0;
  uint64_t seed = 1;
  // Chats: learn every token, not only what the assistant says.
  bool learn_prompts = false;
};

class SampleMaker {
 public:
  // kInvalidArgument if the tokenizer lacks BOS or EOS, or the markers of what is asked for.
  static Result<SampleMaker> Create(std::shared_ptr<const tokenizer::Tokenizer> tokenizer,
                                    const SampleOptions& options);

  // BOS, text, EOS; or BOS, <fim_begin> prefix <fim_hole> suffix <fim_end> middle, EOS; or the
  // chat. Markers spelled in plain text stay text. Targets: all but BOS; of a chat the assistant's
  // words up to and including EOS. A pure function of (document, index): `index` draws the cuts.
  Result<Sample> Make(const Document& document, uint64_t index) const;

 private:
  SampleMaker() = default;
  Sample MakeFill(std::string_view prefix, std::string_view suffix, std::string_view middle) const;
  Sample MakeChat(std::string_view text) const;
  void Append(std::string_view text, Sample& sample) const;

  std::shared_ptr<const tokenizer::Tokenizer> tokenizer_;
  SampleOptions options_;
  uint32_t bos_ = 0, eos_ = 0;
  uint32_t fim_begin_ = 0, fim_hole_ = 0, fim_end_ = 0;
  bool has_fill_ = false;
  uint32_t assistant_ = 0, think_ = 0, end_think_ = 0;
  bool has_chat_ = false;
};

}  // namespace cachalot::train
