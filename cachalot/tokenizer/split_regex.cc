// SPDX-License-Identifier: Apache-2.0
#define PCRE2_CODE_UNIT_WIDTH 8
#include "cachalot/tokenizer/split_regex.h"

#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"
#include "cachalot/tokenizer/utf8.h"

namespace cachalot::tokenizer {
namespace {

struct FreePcre2 {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};
template <typename T>
using Owned = std::unique_ptr<T, FreePcre2>;

// A null pointer is how PCRE2 reports that a few hundred bytes of memory could not be had.
template <typename T>
Owned<T> NotNull(T* p) {
  CACHALOT_CHECK(p != nullptr);
  return Owned<T>(p);
}

constexpr size_t kMinJitStackBytes = 32 * 1024;
constexpr size_t kMaxJitStackBytes = 1024 * 1024;
constexpr uint32_t kMaxHeapKib = 64 * 1024;
// Backtracking one greedy run over the whole text is legitimate (spaces before a line end) and
// costs one count a character, a few alternatives do it each. Expressions that nest repeats need
// more than any multiple.
constexpr uint64_t kMinMatchLimit = 1'000'000;
constexpr uint64_t kMatchLimitPerByte = 16;
constexpr uint32_t kMaxNestedParentheses = 100;

constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;

std::string Pcre2Message(int code) {
  std::string text(256, '\0');
  const int n =
      pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(text.data()), text.size());
  text.resize(n < 0 ? 0 : static_cast<size_t>(n));
  return text;
}

}  // namespace

struct MatchScratch::State {
  Owned<pcre2_match_context> context = NotNull(pcre2_match_context_create(nullptr));
  Owned<pcre2_match_data> data = NotNull(pcre2_match_data_create(1, nullptr));
  Owned<pcre2_jit_stack> jit_stack;  // null on machines without JIT
};

MatchScratch::MatchScratch() : state_(std::make_unique<State>()) {
  state_->jit_stack.reset(pcre2_jit_stack_create(kMinJitStackBytes, kMaxJitStackBytes, nullptr));
  pcre2_jit_stack_assign(state_->context.get(), nullptr, state_->jit_stack.get());
  pcre2_set_heap_limit(state_->context.get(), kMaxHeapKib);
}
MatchScratch::MatchScratch(MatchScratch&&) noexcept = default;
MatchScratch::~MatchScratch() = default;

struct SplitRegex::Code {
  Owned<pcre2_code> regex;
};

SplitRegex::SplitRegex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
SplitRegex::SplitRegex(SplitRegex&&) noexcept = default;
SplitRegex& SplitRegex::operator=(SplitRegex&&) noexcept = default;
SplitRegex::~SplitRegex() = default;

Result<SplitRegex> SplitRegex::Compile(const std::string& regex, std::string_view name) {
  const auto context = NotNull(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), kMaxNestedParentheses);
  int error = 0;
  PCRE2_SIZE at = 0;
  Owned<pcre2_code> compiled(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(),
                                           kOptions, &error, &at, context.get()));
  if (compiled == nullptr) {
    return Error{ErrorCode::kUnsupported, StrCat(name, ": expression does not compile at byte ", at,
                                                 ": ", Pcre2Message(error))};
  }
  // Without JIT (no memory to map, unknown machine) matching interprets: slower, same result.
  static_cast<void>(pcre2_jit_compile(compiled.get(), PCRE2_JIT_COMPLETE));
  return SplitRegex(std::make_unique<Code>(Code{std::move(compiled)}));
}

bool SplitRegex::Next(std::string_view text, size_t from, MatchScratch& scratch, size_t& begin,
                      size_t& end) const {
  MatchScratch::State& state = scratch.state();
  const auto match = [&](uint32_t options) {
    return pcre2_match(code_->regex.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                       from, options | PCRE2_NO_UTF_CHECK, state.data.get(), state.context.get());
  };
  int found = match(0);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = match(PCRE2_NO_JIT);
  if (found < 0) return false;  // no match, or a limit
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(state.data.get());
  begin = bounds[0];
  end = bounds[1];
  return true;
}

void SplitRegex::Split(std::string_view text, MatchScratch& scratch,
                       std::vector<std::string_view>& pieces) const {
  const uint64_t limit = std::max(kMinMatchLimit, text.size() * kMatchLimitPerByte);
  pcre2_set_match_limit(
      scratch.state().context.get(),
      static_cast<uint32_t>(std::min<uint64_t>(limit, std::numeric_limits<uint32_t>::max())));
  size_t done = 0;  // everything before it is in a piece
  const auto cut = [&](size_t at) {
    if (at > done) pieces.push_back(text.substr(done, at - done));
    done = std::max(done, at);
  };
  size_t begin = 0, end = 0;
  for (size_t from = 0; from < text.size() && Next(text, from, scratch, begin, end);) {
    cut(begin);
    cut(end);
    // An empty match cuts where it stands; look for the next one a character later.
    from = end > begin ? end : begin < text.size() ? begin + NextUtf8(text, begin).size : begin;
  }
  cut(text.size());
}

}  // namespace cachalot::tokenizer
