// SPDX-License-Identifier: Apache-2.0
// Reading typed fields of a JSON object, with errors that name the field's path.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "cachalot/base/error.h"
#include "cachalot/chat/json_value.h"

namespace cachalot::chat {

// Foreign text for an error message: quoted, one line, cut short.
std::string Quoted(std::string_view text);

// kInvalidArgument "PATH: is FOUND, expected EXPECTED".
Error FieldError(std::string_view path, const JsonValue& found, std::string_view expected);

// A view of one object at `path`; both must outlive it. A missing field and null are the same.
class Fields {
 public:
  // kInvalidArgument if `json` is no object.
  static Result<Fields> Of(const JsonValue& json, const std::string& path);

  // nullptr if missing or null.
  const JsonValue* Find(std::string_view key) const;
  // "" if missing.
  Result<std::string> OptionalString(std::string_view key) const;
  // Must be there and not empty.
  Result<std::string> RequiredString(std::string_view key) const;
  Result<bool> Bool(std::string_view key, bool fallback) const;
  std::string PathOf(std::string_view key) const;

 private:
  Fields(const JsonValue& json, const std::string& path) : json_(&json), path_(&path) {}

  const JsonValue* json_;
  const std::string* path_;
};

}  // namespace cachalot::chat
