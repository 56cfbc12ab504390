// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/tool_schema.h"

#include <algorithm>
#include <utility>

namespace cachalot::chat {
namespace {

void AddType(std::string_view name, ParameterTypes& types) {
  if (name == "string") types.string = true;
  if (name == "number") types.number = true;
  if (name == "integer") types.integer = true;
  if (name == "boolean") types.boolean = true;
  if (name == "object") types.object = true;
  if (name == "array") types.array = true;
  if (name == "null") types.null = true;
}

// `type` is a name or a list of names. Combinations (anyOf, $ref) say nothing here.
ParameterTypes TypesFromSchema(const JsonValue& schema) {
  ParameterTypes types;
  const JsonValue* type = schema.Find("type");
  if (type == nullptr) return types;
  if (type->IsString()) AddType(type->text, types);
  if (type->IsArray()) {
    for (const JsonValue& name : type->items) AddType(name.text, types);
  }
  return types;
}

ToolSchema SchemaOf(const JsonValue& function) {
  ToolSchema schema;
  if (const JsonValue* name = function.Find("name"); name != nullptr) schema.name = name->text;
  const JsonValue* parameters = function.Find("parameters");
  if (parameters == nullptr) return schema;
  if (const JsonValue* properties = parameters->Find("properties");
      properties != nullptr && properties->IsObject()) {
    for (size_t i = 0; i < properties->keys.size(); ++i) {
      schema.properties.emplace(properties->keys[i], TypesFromSchema(properties->items[i]));
    }
  }
  if (const JsonValue* required = parameters->Find("required");
      required != nullptr && required->IsArray()) {
    for (const JsonValue& key : required->items) schema.required.push_back(key.text);
  }
  return schema;
}

}  // namespace

bool ParameterTypes::Admits(const JsonValue& value) const {
  switch (value.kind) {
    case JsonValue::Kind::kNull:
      return null;
    case JsonValue::Kind::kBool:
      return boolean;
    case JsonValue::Kind::kNumber:
      return number || (integer && value.text.find_first_of(".eE") == std::string::npos);
    case JsonValue::Kind::kString:
      return string;
    case JsonValue::Kind::kArray:
      return array;
    case JsonValue::Kind::kObject:
      break;
  }
  return object;
}

ParameterTypes ToolSchema::TypesOf(std::string_view key) const {
  const auto found = properties.find(key);
  return found == properties.end() ? ParameterTypes{} : found->second;
}

std::vector<ToolSchema> ToolSchemasOf(const std::vector<JsonValue>& functions) {
  std::vector<ToolSchema> schemas;
  for (const JsonValue& function : functions) schemas.push_back(SchemaOf(function));
  return schemas;
}

}  // namespace cachalot::chat
