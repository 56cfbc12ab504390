// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/id_file.h"

#include <charconv>

#include "cachalot/base/strings.h"

namespace cachalot::cli {
namespace {

constexpr std::string_view kSpace = " \t\r\n\v\f";
constexpr size_t kShownBytes = 20;  // of a bad word, in its error

Error BadId(std::string_view name, size_t index, std::string_view word, uint32_t vocab_size) {
  std::string shown(word.substr(0, kShownBytes));
  for (char& c : shown) {
    if (c < 0x20 || c > 0x7E) c = '?';
  }
  return Error{ErrorCode::kInvalidArgument,
               StrCat(name, ": id ", index + 1, " is '", shown, "', expected a token id from 0 to ",
                      vocab_size - 1)};
}

}  // namespace

Result<std::vector<uint32_t>> ParseIds(std::string_view text, std::string_view name,
                                       uint32_t vocab_size) {
  std::vector<uint32_t> ids;
  size_t begin = text.find_first_not_of(kSpace);
  while (begin != std::string_view::npos) {
    const size_t end = std::min(text.find_first_of(kSpace, begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    uint32_t id = 0;
    const auto [rest, failure] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (failure != std::errc() || rest != word.data() + word.size() || id >= vocab_size) {
      return BadId(name, ids.size(), word, vocab_size);
    }
    ids.push_back(id);
    begin = text.find_first_not_of(kSpace, end);
  }
  if (ids.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(name, ": no token ids; expected at least one, separated by white space")};
  }
  return ids;
}

}  // namespace cachalot::cli
