// SPDX-License-Identifier: Apache-2.0
// What the parser needs to know about the declared tools. [chat.md 8.3, rules 5, 6, 9]
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/chat/json_value.h"

namespace cachalot::chat {

// The JSON types a parameter admits; none set: the schema does not say.
struct ParameterTypes {
  bool string = false;
  bool number = false;
  bool integer = false;
  bool boolean = false;
  bool object = false;
  bool array = false;
  bool null = false;

  bool OnlyString() const { return string && !AdmitsOther(); }
  bool AdmitsOther() const { return number || integer || boolean || object || array || null; }
  bool Admits(const JsonValue& value) const;
};

struct ToolSchema {
  std::string name;
  std::map<std::string, ParameterTypes, std::less<>> properties;
  std::vector<std::string> required;

  bool HasProperty(std::string_view key) const { return properties.contains(key); }
  // Unknown types for a property that is not there.
  ParameterTypes TypesOf(std::string_view key) const;
};

// From `function` objects (ToolFunctionsFromJson). What is no proper schema is taken as saying
// nothing: validating schemas is the server's business.
std::vector<ToolSchema> ToolSchemasOf(const std::vector<JsonValue>& functions);

}  // namespace cachalot::chat
