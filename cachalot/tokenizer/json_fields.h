// SPDX-License-Identifier: Apache-2.0
// Looking into tokenizer.json. Internal to the module.
#pragma once

#include <string>
#include <string_view>

#include "cachalot/base/json.h"

namespace cachalot::tokenizer {

// object[key]; a null value if there is none or `object` is no object.
const SortedJson& Field(const SortedJson& object, const char* key);

// A value in an error message: one line of ASCII, cut short.
std::string Shown(const SortedJson& value);

}  // namespace cachalot::tokenizer
