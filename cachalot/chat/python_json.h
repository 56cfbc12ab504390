// SPDX-License-Identifier: Apache-2.0
// JSON text as Python's json.dumps(x, ensure_ascii=False) writes it. [chat.md 5]
#pragma once

#include <string>
#include <string_view>

#include "cachalot/chat/json_value.h"

namespace cachalot::chat {

// Separators ", " and ": ", keys in order, integers verbatim ("-0" as "0"), floats in the shortest
// form that reads back equal, an overflowing float as Infinity (which is not JSON: validators must
// refuse it).
std::string DumpPythonJson(const JsonValue& value);

// `text` escaped for the inside of a JSON string: quote, backslash and control characters only.
// Byte by byte, so pieces of a text may be escaped one after another.
void AppendJsonEscaped(std::string_view text, std::string& out);

// `text` as a JSON string, quotes included.
std::string JsonString(std::string_view text);

}  // namespace cachalot::chat
