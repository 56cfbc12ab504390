// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/schema_compiler.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "cachalot/base/strings.h"

namespace cachalot::grammar {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxStates = 400'000;
// Counted lengths are written out state by state.
constexpr uint64_t kMaxCount = 2048;

// Says nothing about which texts are valid, or about things a grammar need not enforce.
constexpr std::string_view kIgnored[] = {
    "$schema", "$id",      "$comment", "$defs",     "definitions", "title",    "description",
    "default", "examples", "readOnly", "writeOnly", "deprecated",  "nullable", "strict",
    "type",    "enum",     "const",    "anyOf",     "oneOf",       "allOf",    "$ref"};

Error Bad(const std::string& path, std::string_view what) {
  return {ErrorCode::kInvalidArgument, StrCat(path, ": ", what)};
}

// An unknown keyword would silently not be enforced: "guaranteed" would be a lie.
Status OnlyKeywords(const Json& schema, const std::string& path,
                    std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : schema.items()) {
    if (std::ranges::find(kIgnored, key) != std::end(kIgnored)) continue;
    if (std::ranges::find(known, key) != known.end()) continue;
    return Error{ErrorCode::kUnsupported,
                 StrCat(path, ".", key, ": this keyword is not supported here")};
  }
  return {};
}

Result<std::optional<uint64_t>> Count(const Json& schema, const char* key,
                                      const std::string& path) {
  const auto field = schema.find(key);
  if (field == schema.end()) return std::optional<uint64_t>();
  if (!field->is_number_unsigned() || field->get<uint64_t>() > kMaxCount) {
    return Bad(StrCat(path, ".", key), StrCat("expected a count of at most ", kMaxCount));
  }
  return std::optional(field->get<uint64_t>());
}

Result<std::optional<int64_t>> Bound(const Json& schema, const char* key, const std::string& path) {
  const auto field = schema.find(key);
  if (field == schema.end()) return std::optional<int64_t>();
  if (!field->is_number() || std::abs(field->get<double>()) > 9e15) {
    return Bad(StrCat(path, ".", key), "expected a number of at most 15 digits");
  }
  const double value = field->get<double>();
  const bool lower =
      std::string_view(key).find("min") == 0 || std::string_view(key).find("exclusiveMin") == 0;
  return std::optional(static_cast<int64_t>(lower ? std::ceil(value) : std::floor(value)));
}

}  // namespace

Result<Piece> SchemaCompiler::Schema(const Json& schema, const std::string& path) {
  if (schema.is_boolean() && schema.get<bool>()) return json_.Value();
  if (!schema.is_object()) return Bad(path, "expected a schema object");
  if (nfa_.num_states() > kMaxStates) return Bad(path, "the schema is too large");
  if (++depth_ > kMaxDepth) return Bad(path, StrCat("more than ", kMaxDepth, " levels deep"));
  struct Leave {
    int& depth;
    ~Leave() { --depth; }
  } leave{depth_};
  if (const auto f = schema.find("$ref"); f != schema.end()) {
    if (!f->is_string()) return Bad(StrCat(path, ".$ref"), "expected a string");
    return Reference(f->get<std::string>(), path);
  }
  if (const auto f = schema.find("const"); f != schema.end()) {
    return Values(Json::array({*f}));
  }
  if (const auto f = schema.find("enum"); f != schema.end()) {
    if (!f->is_array() || f->empty()) return Bad(StrCat(path, ".enum"), "expected values");
    return Values(*f);
  }
  for (const char* key : {"anyOf", "oneOf", "allOf"}) {
    const auto f = schema.find(key);
    if (f == schema.end()) continue;
    if (!f->is_array() || f->empty()) return Bad(StrCat(path, ".", key), "expected schemas");
    if (std::string_view(key) == "allOf" && f->size() > 1) {
      return Error{ErrorCode::kUnsupported, StrCat(path, ".allOf: only one schema is supported")};
    }
    return Options(*f, StrCat(path, ".", key));
  }
  const auto type = schema.find("type");
  if (type != schema.end() && type->is_string()) {
    return OfType(type->get<std::string>(), schema, path);
  }
  if (type != schema.end() && type->is_array() && !type->empty()) {
    std::vector<Piece> options;
    for (const Json& one : *type) {
      if (!one.is_string()) return Bad(StrCat(path, ".type"), "expected names of types");
      CACHALOT_TRY(const Piece piece, OfType(one.get<std::string>(), schema, path));
      options.push_back(piece);
    }
    return nfa_.Choice(options);
  }
  if (type != schema.end()) return Bad(StrCat(path, ".type"), "expected a type or a list of them");
  if (schema.contains("properties")) return OfType("object", schema, path);
  if (schema.contains("items")) return OfType("array", schema, path);
  CACHALOT_RETURN_IF_ERROR(OnlyKeywords(schema, path, {}));
  return json_.Value();
}

// A rule a pointer, so that schemas may refer to themselves.
Result<Piece> SchemaCompiler::Reference(const std::string& pointer, const std::string& path) {
  if (pointer.empty() || pointer[0] != '#') {
    return Error{ErrorCode::kUnsupported,
                 StrCat(path, ".$ref: only references inside the schema (#/..) are supported")};
  }
  const auto known = references_.find(pointer);
  if (known != references_.end()) return nfa_.CallRule(known->second);
  const Json* target = &root_;
  size_t at = 1;
  while (at < pointer.size()) {
    const size_t end = std::min(pointer.find('/', at + 1), pointer.size());
    const std::string key = pointer.substr(at + 1, end - at - 1);
    if (pointer[at] != '/' || !target->is_object() || !target->contains(key)) {
      return Bad(StrCat(path, ".$ref"), StrCat("'", pointer, "' leads nowhere"));
    }
    target = &(*target)[key];
    at = end;
  }
  const uint32_t rule = nfa_.DeclareRule();
  references_.emplace(pointer, rule);
  CACHALOT_TRY(const Piece body, Schema(*target, pointer));
  nfa_.DefineRule(rule, body);
  return nfa_.CallRule(rule);
}

Result<Piece> SchemaCompiler::Options(const Json& list, const std::string& path) {
  std::vector<Piece> options;
  for (size_t i = 0; i < list.size(); ++i) {
    CACHALOT_TRY(const Piece piece, Schema(list[i], StrCat(path, "[", i, "]")));
    options.push_back(piece);
  }
  return nfa_.Choice(options);
}

Piece SchemaCompiler::Values(const Json& list) {
  std::vector<Piece> options;
  for (const Json& value : list) {
    options.push_back(nfa_.Literal(value.dump(-1, ' ', false, Json::error_handler_t::replace)));
  }
  return nfa_.Choice(options);
}

Result<Piece> SchemaCompiler::OfType(const std::string& type, const Json& schema,
                                     const std::string& path) {
  const bool several = schema.contains("type") && schema["type"].is_array();
  if (type == "null" || type == "boolean") {
    if (!several) CACHALOT_RETURN_IF_ERROR(OnlyKeywords(schema, path, {}));
    return type == "null" ? json_.Null() : json_.Boolean();
  }
  if (type == "object") return OfObject(schema, path);
  if (type == "array") return OfArray(schema, path);
  if (type == "string") return OfString(schema, path);
  if (type == "integer" || type == "number") return OfNumber(type == "integer", schema, path);
  return Bad(StrCat(path, ".type"), StrCat("'", type, "' is no type of JSON"));
}

// Properties in the order they are declared, optional ones may be left out. Others than declared
// are not written even where the schema would let them: every such text is valid all the same.
Result<Piece> SchemaCompiler::OfObject(const Json& schema, const std::string& path) {
  const auto properties = schema.find("properties");
  if (properties == schema.end() || properties->empty()) {
    const auto more = schema.find("additionalProperties");
    if (more == schema.end() || (more->is_boolean() && more->get<bool>())) return json_.Object();
    if (more->is_boolean()) {
      return nfa_.Sequence({nfa_.Literal("{"), json_.Space(), nfa_.Literal("}")});
    }
    CACHALOT_TRY(const Piece value, Schema(*more, StrCat(path, ".additionalProperties")));
    const uint32_t rule = nfa_.DeclareRule();
    nfa_.DefineRule(rule, value);
    return json_.Map([&] { return nfa_.CallRule(rule); });
  }
  if (!properties->is_object()) return Bad(StrCat(path, ".properties"), "expected an object");
  const auto required_field = schema.find("required");
  const Json required = required_field == schema.end() ? Json::array() : *required_field;
  if (!required.is_array()) return Bad(StrCat(path, ".required"), "expected a list of names");
  for (const Json& name : required) {
    if (!name.is_string() || !properties->contains(name.get<std::string>())) {
      return Bad(StrCat(path, ".required"), StrCat(name.dump(), " is no declared property"));
    }
  }
  // Two tracks: nothing was written yet, or a comma is needed.
  State first = nfa_.AddState();
  State later = nfa_.AddState();
  const State begin = first;
  for (const auto& [name, property] : properties->items()) {
    CACHALOT_TRY(const Piece value, Schema(property, StrCat(path, ".properties.", name)));
    const uint32_t rule = nfa_.DeclareRule();
    nfa_.DefineRule(rule, value);
    const Piece key = nfa_.Literal(Json(name).dump());
    const Piece key_again = nfa_.Literal(Json(name).dump());
    const Piece starts = json_.Member(key, nfa_.CallRule(rule));
    const Piece follows = nfa_.Sequence(
        {nfa_.Literal(","), json_.Space(), json_.Member(key_again, nfa_.CallRule(rule))});
    nfa_.AddEmpty(first, starts.begin);
    nfa_.AddEmpty(later, follows.begin);
    const State next_first = nfa_.AddState();
    const State next_later = nfa_.AddState();
    nfa_.AddEmpty(starts.end, next_later);
    nfa_.AddEmpty(follows.end, next_later);
    const bool must = std::ranges::find(required, Json(name)) != required.end();
    if (!must) {
      nfa_.AddEmpty(first, next_first);
      nfa_.AddEmpty(later, next_later);
    }
    first = next_first;
    later = next_later;
  }
  const State end = nfa_.AddState();
  nfa_.AddEmpty(first, end);
  nfa_.AddEmpty(later, end);
  return nfa_.Sequence(
      {nfa_.Literal("{"), json_.Space(), {begin, end}, json_.Space(), nfa_.Literal("}")});
}

Result<Piece> SchemaCompiler::OfArray(const Json& schema, const std::string& path) {
  CACHALOT_TRY(const auto least, Count(schema, "minItems", path));
  CACHALOT_TRY(const auto most, Count(schema, "maxItems", path));
  if (least && most && *least > *most) return Bad(path, "minItems is above maxItems");
  const auto items = schema.find("items");
  const uint32_t rule = nfa_.DeclareRule();
  if (items == schema.end()) {
    nfa_.DefineRule(rule, json_.Value());
  } else {
    CACHALOT_TRY(const Piece item, Schema(*items, StrCat(path, ".items")));
    nfa_.DefineRule(rule, item);
  }
  std::optional<uint32_t> bound;
  if (most) bound = static_cast<uint32_t>(*most);
  return json_.Array([&] { return nfa_.CallRule(rule); }, static_cast<uint32_t>(least.value_or(0)),
                     bound);
}

Result<Piece> SchemaCompiler::OfString(const Json& schema, const std::string& path) {
  for (const char* key : {"pattern", "format"}) {
    if (schema.contains(key)) {
      return Error{ErrorCode::kUnsupported,
                   StrCat(path, ".", key, ": not enforced by this server; leave it out")};
    }
  }
  CACHALOT_TRY(const auto least, Count(schema, "minLength", path));
  CACHALOT_TRY(const auto most, Count(schema, "maxLength", path));
  if (least && most && *least > *most) return Bad(path, "minLength is above maxLength");
  std::optional<uint32_t> bound;
  if (most) bound = static_cast<uint32_t>(*most);
  return json_.String(static_cast<uint32_t>(least.value_or(0)), bound);
}

Result<Piece> SchemaCompiler::OfNumber(bool integer, const Json& schema, const std::string& path) {
  if (schema.contains("multipleOf")) {
    return Error{ErrorCode::kUnsupported, StrCat(path, ".multipleOf: not supported")};
  }
  CACHALOT_TRY(auto low, Bound(schema, "minimum", path));
  CACHALOT_TRY(auto high, Bound(schema, "maximum", path));
  CACHALOT_TRY(const auto above, Bound(schema, "exclusiveMinimum", path));
  CACHALOT_TRY(const auto below, Bound(schema, "exclusiveMaximum", path));
  if (!integer) {
    if (high || above || below || (low && schema["minimum"].get<double>() != 0)) {
      return Error{ErrorCode::kUnsupported,
                   StrCat(path,
                          ": of the bounds of a number only minimum 0 is supported; "
                          "integers may have any")};
    }
    return json_.Number(/*negative=*/!low);
  }
  const auto whole = [&](const char* key) {
    return schema[key].get<double>() == std::floor(schema[key].get<double>());
  };
  if (above) low = std::max(low.value_or(INT64_MIN), *above + (whole("exclusiveMinimum") ? 1 : 0));
  if (below) {
    high = std::min(high.value_or(INT64_MAX), *below - (whole("exclusiveMaximum") ? 1 : 0));
  }
  if (low && high && *low > *high) return Bad(path, "no integer lies between the bounds");
  return json_.Integer(low, high);
}

}  // namespace cachalot::grammar
