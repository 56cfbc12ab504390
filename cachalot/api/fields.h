// SPDX-License-Identifier: Apache-2.0
// Typed fields of a request's JSON, with errors that name the field. Internal to the module.
//
// Not chat::Fields: here errors carry the field for `param`, numbers have ranges, and 1.0 is an
// integer. A missing field and null are the same everywhere.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cachalot/api/api_error.h"
#include "cachalot/chat/json_value.h"

namespace cachalot::api {

std::string ItemPath(std::string_view path, size_t index);  // "messages[3]"
ApiError WrongKind(const std::string& path, const chat::JsonValue& found,
                   std::string_view expected);
ApiError MissingField(const std::string& path);
// "PATH: is 'FOUND', expected one of EXPECTED".
ApiError UnknownName(const std::string& path, std::string_view found, std::string_view expected);

// The number as a double; nullopt if it is none, or too large for one.
std::optional<double> NumberOf(const chat::JsonValue& json);
// kNumber that is a whole number of [low, high]; errors at `path`.
ApiResult<int64_t> IntegerOf(const chat::JsonValue& json, const std::string& path, int64_t low,
                             int64_t high);

chat::JsonValue StringValue(std::string text);
chat::JsonValue ObjectValue(std::vector<std::pair<std::string, chat::JsonValue>> members);

// All of a request: its JSON, which must be an object.
ApiResult<chat::JsonValue> ParseBody(std::string_view body);

// A view of one object; it must outlive this.
class Object {
 public:
  static ApiResult<Object> Of(const chat::JsonValue& json, std::string path);

  // nullptr if missing or null.
  const chat::JsonValue* Find(std::string_view key) const;
  std::string PathOf(std::string_view key) const;
  const std::string& path() const { return path_; }

  ApiResult<std::optional<std::string>> String(std::string_view key) const;
  // Must be there; may be empty only if `allow_empty`.
  ApiResult<std::string> RequiredString(std::string_view key, bool allow_empty = false) const;
  ApiResult<std::optional<bool>> Bool(std::string_view key) const;
  ApiResult<bool> Bool(std::string_view key, bool fallback) const;
  ApiResult<std::optional<double>> Number(std::string_view key) const;
  ApiResult<std::optional<int64_t>> Integer(std::string_view key, int64_t low, int64_t high) const;
  ApiResult<std::optional<Object>> Child(std::string_view key) const;
  // Empty if missing.
  ApiResult<std::span<const chat::JsonValue>> List(std::string_view key) const;

 private:
  Object(const chat::JsonValue& json, std::string path) : json_(&json), path_(std::move(path)) {}

  const chat::JsonValue* json_;
  std::string path_;
};

}  // namespace cachalot::api
