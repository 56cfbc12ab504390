// SPDX-License-Identifier: Apache-2.0
// StrCat, the way error messages are put together.
#pragma once

#include <fmt/format.h>

#include <iterator>
#include <string>

namespace cachalot {

// StrCat("a", 1, 2.5) == "a12.5". Anything fmt can format.
template <typename... Args>
std::string StrCat(const Args&... args) {
  std::string out;
  (fmt::format_to(std::back_inserter(out), "{}", args), ...);
  return out;
}

}  // namespace cachalot
