// SPDX-License-Identifier: Apache-2.0
// StrCat, the way error messages are put together.
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>

namespace cachalot {

// StrCat("a", 1, 2.5) == "a12.5". Anything fmt can format, up to 32 of them. The formatting itself
// is libfmt's compiled code: a caller instantiates none of it.
template <typename... Args>
std::string StrCat(const Args&... args) {
  constexpr std::string_view kFields =
      "{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}";
  static_assert(2 * sizeof...(args) <= kFields.size());
  return fmt::vformat(kFields.substr(0, 2 * sizeof...(args)), fmt::make_format_args(args...));
}

}  // namespace cachalot
