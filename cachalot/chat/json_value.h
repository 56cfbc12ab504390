// SPDX-License-Identifier: Apache-2.0
// JSON that remembers how its numbers were written. [chat.md 5]
//
// Prompts must equal Python's json.dumps(json.loads(x)) to the byte: integers of any size, 1e400
// as Infinity, lone surrogates as U+FFFD. nlohmann/json (base/json.h) refuses the last two, also in
// its SAX interface, and keeps integers only to 64 bits; hence a reader of our own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::chat {

struct JsonValue {
  enum class Kind : uint8_t { kNull, kBool, kNumber, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  bool boolean = false;
  std::string text;               // string: its UTF-8; number: as written
  std::vector<JsonValue> items;   // array elements, object values
  std::vector<std::string> keys;  // object: keys of `items`, unique, in order of first appearance

  bool IsNull() const { return kind == Kind::kNull; }
  bool IsString() const { return kind == Kind::kString; }
  bool IsArray() const { return kind == Kind::kArray; }
  bool IsObject() const { return kind == Kind::kObject; }
  // The member `key` of an object; nullptr if there is none or this is no object. Linear.
  const JsonValue* Find(std::string_view key) const;
};

// "a string", "an object", ... for error messages.
std::string_view KindName(JsonValue::Kind kind);

// All of `text` (RFC 8259, nesting to kMaxJsonDepth of base/json.h). A duplicate key keeps its
// first position and takes the last value. Invalid UTF-8 and bad syntax are kInvalidArgument, with
// `name` and the byte offset.
Result<JsonValue> ParseJsonValue(std::string_view text, std::string_view name);

}  // namespace cachalot::chat
