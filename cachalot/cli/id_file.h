// SPDX-License-Identifier: Apache-2.0
// Files of token ids separated by white space.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::cli {

// Decimal ids below `vocab_size`, at least one; kInvalidArgument naming `name` and the number of
// the first bad word.
Result<std::vector<uint32_t>> ParseIds(std::string_view text, std::string_view name,
                                       uint32_t vocab_size);

}  // namespace cachalot::cli
