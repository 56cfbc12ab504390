// SPDX-License-Identifier: Apache-2.0
// The little UTF-8 that JSON needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cachalot::chat {

// Length of the well-formed sequence at `pos` (no surrogates, no overlong forms); 0 if there is
// none.
size_t Utf8Length(std::string_view text, size_t pos);

// A code point that is no surrogate and at most U+10FFFF.
void AppendUtf8(uint32_t code_point, std::string& out);

// `text` with U+FFFD for every byte that is part of no well-formed sequence.
std::string SanitizeUtf8(std::string_view text);

}  // namespace cachalot::chat
