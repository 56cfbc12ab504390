// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/fields.h"

#include <charconv>
#include <cmath>

#include "cachalot/base/strings.h"
#include "cachalot/chat/json_fields.h"

namespace cachalot::api {

using chat::JsonValue;

std::string ItemPath(std::string_view path, size_t index) { return StrCat(path, "[", index, "]"); }

ApiError WrongKind(const std::string& path, const JsonValue& found, std::string_view expected) {
  const std::string_view at = path.empty() ? "request body" : std::string_view(path);
  return InvalidRequest(path,
                        StrCat(at, ": is ", chat::KindName(found.kind), ", expected ", expected));
}

ApiError MissingField(const std::string& path) {
  return InvalidRequest(
      path, StrCat("Failed to deserialize the JSON body into the target type: missing field `",
                   path, "`"));
}

ApiError UnknownName(const std::string& path, std::string_view found, std::string_view expected) {
  return InvalidRequest(path,
                        StrCat(path, ": is ", chat::Quoted(found), ", expected one of ", expected));
}

std::optional<double> NumberOf(const JsonValue& json) {
  if (json.kind != JsonValue::Kind::kNumber) return std::nullopt;
  double value = 0;
  const std::string& text = json.text;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec == std::errc()) return value;
  // Too large or too small; only the latter has a double that is near.
  const size_t e = text.find_first_of("eE");
  const bool tiny = e != std::string::npos && text.find('-', e) != std::string::npos;
  if (tiny) return 0.0;
  return std::nullopt;
}

ApiResult<int64_t> IntegerOf(const JsonValue& json, const std::string& path, int64_t low,
                             int64_t high) {
  const std::string expected = StrCat("an integer from ", low, " to ", high);
  if (json.kind != JsonValue::Kind::kNumber) return WrongKind(path, json, expected);
  int64_t value = 0;
  bool whole = false;
  if (json.text.find_first_of(".eE") == std::string::npos) {
    const char* end = json.text.data() + json.text.size();
    whole = std::from_chars(json.text.data(), end, value).ec == std::errc();
  } else if (const std::optional<double> number = NumberOf(json); number.has_value()) {
    constexpr double kExact = 9007199254740992.0;  // 2^53
    whole = std::trunc(*number) == *number && std::abs(*number) <= kExact;
    if (whole) value = static_cast<int64_t>(*number);
  }
  if (whole && value >= low && value <= high) return value;
  return InvalidRequest(path,
                        StrCat(path, ": is ", json.text.substr(0, 32), ", expected ", expected));
}

JsonValue StringValue(std::string text) {
  return {.kind = JsonValue::Kind::kString, .text = std::move(text)};
}

JsonValue ObjectValue(std::vector<std::pair<std::string, JsonValue>> members) {
  JsonValue object{.kind = JsonValue::Kind::kObject};
  for (auto& [key, value] : members) {
    object.keys.push_back(std::move(key));
    object.items.push_back(std::move(value));
  }
  return object;
}

ApiResult<JsonValue> ParseBody(std::string_view body) {
  Result<JsonValue> json = chat::ParseJsonValue(body, "request body");
  if (!json.ok()) return InvalidRequest("", json.error().message);
  if (!json->IsObject()) return WrongKind("", *json, "an object");
  return std::move(json).value();
}

ApiResult<Object> Object::Of(const JsonValue& json, std::string path) {
  if (!json.IsObject()) return WrongKind(path, json, "an object");
  return Object(json, std::move(path));
}

const JsonValue* Object::Find(std::string_view key) const {
  const JsonValue* value = json_->Find(key);
  return value != nullptr && value->IsNull() ? nullptr : value;
}

std::string Object::PathOf(std::string_view key) const {
  return path_.empty() ? std::string(key) : StrCat(path_, ".", key);
}

ApiResult<std::optional<std::string>> Object::String(std::string_view key) const {
  const JsonValue* value = Find(key);
  if (value == nullptr) return std::optional<std::string>();
  if (!value->IsString()) return WrongKind(PathOf(key), *value, "a string");
  return std::optional<std::string>(value->text);
}

ApiResult<std::string> Object::RequiredString(std::string_view key, bool allow_empty) const {
  CACHALOT_TRY(std::optional<std::string> text, String(key));
  if (!text.has_value()) return MissingField(PathOf(key));
  if (text->empty() && !allow_empty) {
    return InvalidRequest(PathOf(key), StrCat(PathOf(key), ": is empty"));
  }
  return *std::move(text);
}

ApiResult<std::optional<bool>> Object::Bool(std::string_view key) const {
  const JsonValue* value = Find(key);
  if (value == nullptr) return std::optional<bool>();
  if (value->kind != JsonValue::Kind::kBool) {
    return WrongKind(PathOf(key), *value, "true or false");
  }
  return std::optional<bool>(value->boolean);
}

ApiResult<bool> Object::Bool(std::string_view key, bool fallback) const {
  CACHALOT_TRY(const std::optional<bool> value, Bool(key));
  return value.value_or(fallback);
}

ApiResult<std::optional<double>> Object::Number(std::string_view key) const {
  const JsonValue* value = Find(key);
  if (value == nullptr) return std::optional<double>();
  if (value->kind != JsonValue::Kind::kNumber) return WrongKind(PathOf(key), *value, "a number");
  const std::optional<double> number = NumberOf(*value);
  if (number.has_value()) return number;
  return InvalidRequest(PathOf(key), StrCat(PathOf(key), ": is too large a number"));
}

ApiResult<std::optional<int64_t>> Object::Integer(std::string_view key, int64_t low,
                                                  int64_t high) const {
  const JsonValue* value = Find(key);
  if (value == nullptr) return std::optional<int64_t>();
  CACHALOT_TRY(const int64_t integer, IntegerOf(*value, PathOf(key), low, high));
  return std::optional<int64_t>(integer);
}

ApiResult<std::optional<Object>> Object::Child(std::string_view key) const {
  const JsonValue* value = Find(key);
  if (value == nullptr) return std::optional<Object>();
  CACHALOT_TRY(Object child, Of(*value, PathOf(key)));
  return std::optional<Object>(std::move(child));
}

ApiResult<std::span<const JsonValue>> Object::List(std::string_view key) const {
  const JsonValue* value = Find(key);
  if (value == nullptr) return std::span<const JsonValue>();
  if (!value->IsArray()) return WrongKind(PathOf(key), *value, "a list");
  return std::span<const JsonValue>(value->items);
}

}  // namespace cachalot::api
