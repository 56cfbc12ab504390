// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/pre_tokenizer.h"

#include "cachalot/base/strings.h"
#include "cachalot/tokenizer/utf8.h"

namespace cachalot::tokenizer {
namespace {

// Length of the run of bytes at text[at] that belong to no character.
size_t InvalidLength(std::string_view text, size_t at) {
  const size_t begin = at;
  while (at < text.size()) {
    const Utf8Step step = NextUtf8(text, at);
    if (step.kind == Utf8Kind::kValid) break;
    at += step.size;
  }
  return at - begin;
}

}  // namespace

void PreTokenizer::SplitValid(std::string_view text, PreTokenizerScratch& scratch,
                              std::vector<std::string_view>& out) const {
  std::vector<std::string_view>& pieces = scratch.pieces;
  pieces.assign(1, text);
  for (const SplitRegex& step : steps_) {
    scratch.next.clear();
    for (const std::string_view piece : pieces) step.Split(piece, scratch.match, scratch.next);
    pieces.swap(scratch.next);
  }
  for (std::string_view piece : pieces) {
    if (add_prefix_space_ && piece[0] != ' ') {
      piece = scratch.prefixed.emplace_back(StrCat(" ", piece));
    }
    out.push_back(piece);
  }
}

void PreTokenizer::Run(std::string_view text, PreTokenizerScratch& scratch) const {
  scratch.prefixed.clear();
  std::vector<std::string_view> out;
  for (size_t at = 0; at < text.size();) {
    if (const size_t valid = ValidUtf8Length(text, at); valid > 0) {
      SplitValid(text.substr(at, valid), scratch, out);
      at += valid;
    }
    if (const size_t invalid = InvalidLength(text, at); invalid > 0) {
      out.push_back(text.substr(at, invalid));
      at += invalid;
    }
  }
  scratch.pieces.swap(out);
}

}  // namespace cachalot::tokenizer
