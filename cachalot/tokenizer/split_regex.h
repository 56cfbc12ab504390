// SPDX-License-Identifier: Apache-2.0
// A compiled Split expression: cuts text into matches and the gaps between them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::tokenizer {

// What matching writes to; one per thread of use, cheap enough for one per Encode().
class MatchScratch {
 public:
  MatchScratch();
  MatchScratch(MatchScratch&&) noexcept;
  ~MatchScratch();

  struct State;
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

// Thread-safe const.
class SplitRegex {
 public:
  // `regex` in PCRE2 syntax (see regex_dialect.h), with UTF, UCP and MULTILINE. kUnsupported,
  // starting with `name`, if it does not compile.
  static Result<SplitRegex> Compile(const std::string& regex, std::string_view name);
  SplitRegex(SplitRegex&&) noexcept;
  SplitRegex& operator=(SplitRegex&&) noexcept;
  ~SplitRegex();

  // Appends the pieces of `text`, in order, none empty; together they are `text`. Pre: valid UTF-8.
  // Look-around sees nothing outside `text`. When an expression backtracks beyond a limit that
  // grows with the text, the rest of `text` becomes one piece: encoding cannot fail, and the limit
  // is out of reach of the expressions in use.
  void Split(std::string_view text, MatchScratch& scratch,
             std::vector<std::string_view>& pieces) const;

 private:
  struct Code;
  explicit SplitRegex(std::unique_ptr<Code> code);
  bool Next(std::string_view text, size_t from, MatchScratch& scratch, size_t& begin,
            size_t& end) const;

  std::unique_ptr<Code> code_;
};

}  // namespace cachalot::tokenizer
