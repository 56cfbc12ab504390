// SPDX-License-Identifier: Apache-2.0
// Cuts text into the pieces inside which BPE merges. [chat.md 2.2 step 3]
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/tokenizer/split_regex.h"

namespace cachalot::tokenizer {

// Reused over the gaps of one Encode(); not shared between threads.
struct PreTokenizerScratch {
  MatchScratch match;
  std::vector<std::string_view> pieces, next;
  std::deque<std::string> prefixed;  // texts of pieces that got a space; a deque never moves them
};

// Thread-safe const.
class PreTokenizer {
 public:
  // The split steps, each applied to every piece of the one before; `add_prefix_space` puts a space
  // before every resulting piece that does not begin with one.
  PreTokenizer(std::vector<SplitRegex> steps, bool add_prefix_space)
      : steps_(std::move(steps)), add_prefix_space_(add_prefix_space) {}

  // The pieces of `text` are left in scratch.pieces: views into `text` or scratch.prefixed, none
  // empty. Any bytes: PCRE2 needs UTF-8, so each run of invalid bytes is a piece of its own and
  // the text between is cut as if it stood alone.
  void Run(std::string_view text, PreTokenizerScratch& scratch) const;

 private:
  void SplitValid(std::string_view text, PreTokenizerScratch& scratch,
                  std::vector<std::string_view>& out) const;

  std::vector<SplitRegex> steps_;
  bool add_prefix_space_;
};

}  // namespace cachalot::tokenizer
