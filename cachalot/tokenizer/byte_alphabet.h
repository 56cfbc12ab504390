// SPDX-License-Identifier: Apache-2.0
// The alphabet byte-level vocabularies are written in: one printable character a byte.
// [chat.md 2.1]
//
//   bytes 21..7E, A1..AC, AE..FF   the code point of the same number
//   the other 68 bytes, ascending  U+0100..U+0143      (so 0A is U+010A, space is U+0120)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cachalot::tokenizer {

// The character of `byte`, as UTF-8.
std::string ByteSymbol(uint8_t byte);

// The bytes a vocabulary entry stands for; nullopt if a character is outside the alphabet.
std::optional<std::string> BytesOfSymbols(std::string_view symbols);

}  // namespace cachalot::tokenizer
