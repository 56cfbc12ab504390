// SPDX-License-Identifier: Apache-2.0
// The `pre_tokenizer` field of tokenizer.json. Internal to the module.
#pragma once

#include <string_view>

#include "cachalot/base/error.h"
#include "cachalot/base/json.h"
#include "cachalot/tokenizer/pre_tokenizer.h"

namespace cachalot::tokenizer {

// A ByteLevel step, or a Sequence of Split and Digits steps that ends with one. `name` starts every
// error message. kUnsupported for any other type, order or behavior, by name.
Result<PreTokenizer> ParsePreTokenizer(const SortedJson& field, std::string_view name);

}  // namespace cachalot::tokenizer
