// SPDX-License-Identifier: Apache-2.0
// JSON from outside: parsed without exceptions, with a depth limit, keys in file order.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>

#include "cachalot/base/error.h"

namespace cachalot {

using Json = nlohmann::ordered_json;

// Nesting beyond this is refused: nlohmann's tree is destroyed and copied recursively, so depth is
// stack.
inline constexpr size_t kMaxJsonDepth = 256;

// Parses all of `text` (UTF-8). `name` (a path, a field) starts the error message. kDataCorruption
// with the byte offset on bad syntax. A duplicate key keeps its first position and last value.
Result<Json> ParseJson(std::string_view text, std::string_view name);

// The same with keys sorted: for objects of many keys (a vocabulary), where keeping the file order
// costs a linear search per key and therefore quadratic time.
using SortedJson = nlohmann::json;
Result<SortedJson> ParseSortedJson(std::string_view text, std::string_view name);

}  // namespace cachalot
