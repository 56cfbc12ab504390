// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/json_fields.h"

#include "cachalot/base/strings.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::chat {

std::string Quoted(std::string_view text) {
  constexpr size_t kMaxShown = 64;
  std::string out = "'";
  AppendJsonEscaped(text.substr(0, kMaxShown), out);
  return out + (text.size() > kMaxShown ? "...'" : "'");
}

Error FieldError(std::string_view path, const JsonValue& found, std::string_view expected) {
  return {ErrorCode::kInvalidArgument,
          StrCat(path, ": is ", KindName(found.kind), ", expected ", expected)};
}

Result<Fields> Fields::Of(const JsonValue& json, const std::string& path) {
  if (!json.IsObject()) return FieldError(path, json, "an object");
  return Fields(json, path);
}

const JsonValue* Fields::Find(std::string_view key) const {
  const JsonValue* value = json_->Find(key);
  return value != nullptr && value->IsNull() ? nullptr : value;
}

Result<std::string> Fields::OptionalString(std::string_view key) const {
  const JsonValue* value = Find(key);
  if (value == nullptr) return std::string();
  if (!value->IsString()) return FieldError(PathOf(key), *value, "a string");
  return value->text;
}

Result<std::string> Fields::RequiredString(std::string_view key) const {
  CACHALOT_TRY(std::string text, OptionalString(key));
  if (text.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(PathOf(key), ": missing or empty, expected a string")};
  }
  return text;
}

Result<bool> Fields::Bool(std::string_view key, bool fallback) const {
  const JsonValue* value = Find(key);
  if (value == nullptr) return fallback;
  if (value->kind != JsonValue::Kind::kBool)
    return FieldError(PathOf(key), *value, "true or false");
  return value->boolean;
}

std::string Fields::PathOf(std::string_view key) const {
  return path_->empty() ? std::string(key) : StrCat(*path_, ".", key);
}

}  // namespace cachalot::chat
