// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/schema_compiler.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <span>
#include <vector>

#include "cachalot/base/strings.h"
#include "cachalot/grammar/formats.h"
#include "cachalot/grammar/number_automaton.h"
#include "cachalot/grammar/regex.h"

namespace cachalot::grammar {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxStates = 400'000;
// Counted lengths are written out state by state.
constexpr uint64_t kMaxCount = 2048;

// Keywords that say alone which texts are valid; another assertion beside one would be a second
// condition on the same text.
constexpr std::string_view kWhole[] = {"$ref", "const", "enum", "anyOf", "oneOf", "allOf"};
// Assertions of JSON Schema 2020-12 (and of drafts before it) that this compiler enforces, some
// for some types only. Keywords of no standard are annotations.
constexpr std::string_view kEnforced[] = {
    "type",        "properties",       "required",         "additionalProperties",
    "items",       "minItems",         "maxItems",         "pattern",
    "format",      "minLength",        "maxLength",        "minimum",
    "maximum",     "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "prefixItems", "propertyNames"};
// Those it does not. Ignoring one would make "guaranteed" a lie.
constexpr std::string_view kUnenforced[] = {"not",
                                            "if",
                                            "then",
                                            "else",
                                            "uniqueItems",
                                            "additionalItems",
                                            "contains",
                                            "minContains",
                                            "maxContains",
                                            "unevaluatedItems",
                                            "minProperties",
                                            "maxProperties",
                                            "patternProperties",
                                            "dependencies",
                                            "$dynamicRef",
                                            "dependentRequired",
                                            "dependentSchemas",
                                            "$recursiveRef",
                                            "unevaluatedProperties"};

bool IsOneOf(std::string_view key, std::span<const std::string_view> keys) {
  return std::ranges::find(keys, key) != keys.end();
}

Error Bad(const std::string& path, std::string_view what) {
  return {ErrorCode::kInvalidArgument, StrCat(path, ": ", what)};
}

Error Unsupported(const std::string& path, std::string_view key, std::string_view why) {
  return {ErrorCode::kUnsupported, StrCat(path, ".", key, ": ", why)};
}

// Everything the schema asserts is enforced, or it is refused by the keyword's name.
Status CheckKeywords(const Json& schema, const std::string& path) {
  std::string_view whole;
  for (const auto& [key, value] : schema.items()) {
    if (IsOneOf(key, kUnenforced)) {
      return Unsupported(path, key, "this keyword is not supported here");
    }
    if (!IsOneOf(key, kWhole)) continue;
    if (!whole.empty()) return Unsupported(path, key, StrCat("not supported beside ", whole));
    whole = key;
  }
  const bool lists_values = whole == "const" || whole == "enum";
  for (const auto& [key, value] : schema.items()) {
    if (whole.empty() || !IsOneOf(key, kEnforced) || (key == "type" && lists_values)) continue;
    return Unsupported(path, key, StrCat("not supported beside ", whole));
  }
  return {};
}

bool IsOfType(const Json& value, std::string_view type) {
  if (type == "integer") {
    return value.is_number() && value.get<double>() == std::floor(value.get<double>());
  }
  return (type == "null" && value.is_null()) || (type == "boolean" && value.is_boolean()) ||
         (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
         (type == "string" && value.is_string()) || (type == "number" && value.is_number());
}

// Those of the listed values that are of the schema's type, if it has one.
Json ValuesOfType(const Json& list, const Json& schema) {
  const auto type = schema.find("type");
  if (type == schema.end()) return list;
  const Json types = type->is_array() ? *type : Json::array({*type});
  Json values = Json::array();
  for (const Json& value : list) {
    const bool fits = std::ranges::any_of(types, [&](const Json& one) {
      return one.is_string() && IsOfType(value, one.get<std::string>());
    });
    if (fits) values.push_back(value);
  }
  return values;
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

Result<std::optional<Decimal>> Number(const Json& schema, const char* key,
                                      const std::string& path) {
  const auto field = schema.find(key);
  if (field == schema.end()) return std::optional<Decimal>();
  const std::optional<Decimal> number = ToDecimal(*field);
  if (!number) return Bad(StrCat(path, ".", key), "expected a number of at most 40 digits");
  return number;
}

// -1, 0, 1
int Compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  int order = a.whole.size() < b.whole.size() ? -1 : a.whole.size() > b.whole.size() ? 1 : 0;
  if (order == 0) order = a.whole.compare(b.whole);
  if (order == 0) order = a.fraction.compare(b.fraction);
  return (order > 0 ? 1 : order < 0 ? -1 : 0) * (a.negative ? -1 : 1);
}

// The stricter one of a closed and an open bound: `sign` 1 for those below, -1 for those above.
void Tighten(const std::optional<Decimal>& bound, int sign, std::optional<Decimal>& out,
             bool& open) {
  if (!bound || (out && Compare(*bound, *out) * sign < 0)) return;
  out = bound;
  open = true;
}

}  // namespace

Status SchemaCompiler::CheckSize(const Nfa& nfa, const std::string& path) {
  if (nfa.num_states() > kMaxStates) return Bad(path, "the schema is too large");
  return {};
}

Result<Piece> SchemaCompiler::Schema(const Json& schema, const std::string& path) {
  if (schema.is_boolean() && schema.get<bool>()) return json_.Value();
  if (!schema.is_object()) return Bad(path, "expected a schema object");
  CACHALOT_RETURN_IF_ERROR(CheckSize(nfa_, path));
  if (++depth_ > kMaxDepth) return Bad(path, StrCat("more than ", kMaxDepth, " levels deep"));
  struct Leave {
    int& depth;
    ~Leave() { --depth; }
  } leave{depth_};
  CACHALOT_RETURN_IF_ERROR(CheckKeywords(schema, path));
  if (const auto f = schema.find("$ref"); f != schema.end()) {
    if (!f->is_string()) return Bad(StrCat(path, ".$ref"), "expected a string");
    return Reference(f->get<std::string>(), path);
  }
  if (const auto f = schema.find("const"); f != schema.end()) {
    const Json value = ValuesOfType(Json::array({*f}), schema);
    if (value.empty()) return Bad(StrCat(path, ".const"), "is not of the schema's type");
    return Values(value);
  }
  if (const auto f = schema.find("enum"); f != schema.end()) {
    if (!f->is_array() || f->empty()) return Bad(StrCat(path, ".enum"), "expected values");
    const Json values = ValuesOfType(*f, schema);
    if (values.empty()) return Bad(StrCat(path, ".enum"), "no value is of the schema's type");
    return Values(values);
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
  for (const auto& [key, value] : schema.items()) {
    if (IsOneOf(key, kEnforced)) return Unsupported(path, key, "only supported beside a type");
  }
  return json_.Value();
}

namespace {

// "~1" is '/', "~0" '~'. [RFC 6901, section 4]
std::string PointerKey(std::string_view text) {
  std::string key;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '~' && i + 1 < text.size();
    if (escape) ++i;
    key += escape ? (text[i] == '1' ? '/' : '~') : text[i];
  }
  return key;
}

const Json* Child(const Json& json, const std::string& key) {
  if (json.is_object()) {
    const auto found = json.find(key);
    return found == json.end() ? nullptr : &*found;
  }
  size_t index = 0;
  const auto parsed = std::from_chars(key.data(), key.data() + key.size(), index);
  const bool valid = json.is_array() && parsed.ec == std::errc() &&
                     parsed.ptr == key.data() + key.size() && index < json.size();
  return valid ? &json[index] : nullptr;
}

}  // namespace

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
    const std::string key = PointerKey(std::string_view(pointer).substr(at + 1, end - at - 1));
    target = pointer[at] == '/' ? Child(*target, key) : nullptr;
    if (target == nullptr) {
      return Bad(StrCat(path, ".$ref"), StrCat("'", pointer, "' leads nowhere"));
    }
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
  if (type == "null") return json_.Null();
  if (type == "boolean") return json_.Boolean();
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
    if (schema.contains("required") && !schema["required"].empty()) {
      return Unsupported(path, "required", "only supported for declared properties");
    }
    return OfMap(schema, path);
  }
  if (schema.contains("propertyNames")) {
    return Unsupported(path, "propertyNames", "not supported beside properties");
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

// An object of any keys, or of those propertyNames allows.
Result<Piece> SchemaCompiler::OfMap(const Json& schema, const std::string& path) {
  const auto more = schema.find("additionalProperties");
  if (more != schema.end() && more->is_boolean() && !more->get<bool>()) {
    return nfa_.Sequence({nfa_.Literal("{"), json_.Space(), nfa_.Literal("}")});
  }
  const auto names = schema.find("propertyNames");
  if (names == schema.end() && (more == schema.end() || more->is_boolean())) return json_.Object();
  uint32_t key_rule = 0;
  if (names != schema.end()) {
    CACHALOT_TRY(const Piece key, NameSchema(*names, StrCat(path, ".propertyNames")));
    key_rule = nfa_.DeclareRule();
    nfa_.DefineRule(key_rule, key);
  }
  const uint32_t rule = nfa_.DeclareRule();
  if (more == schema.end()) {
    nfa_.DefineRule(rule, json_.Value());
  } else {
    CACHALOT_TRY(const Piece value, Schema(*more, StrCat(path, ".additionalProperties")));
    nfa_.DefineRule(rule, value);
  }
  const auto key = [&] {
    return names == schema.end() ? json_.String(0, {}) : nfa_.CallRule(key_rule);
  };
  return json_.Map(key, [&] { return nfa_.CallRule(rule); });
}

// Names are strings, whether the schema says so or not.
Result<Piece> SchemaCompiler::NameSchema(const Json& schema, const std::string& path) {
  if (!schema.is_object()) return Bad(path, "expected a schema of strings");
  for (const char* key : {"enum", "const"}) {
    const auto list = schema.find(key);
    if (list == schema.end()) continue;
    const Json values = list->is_array() ? *list : Json::array({*list});
    const bool strings = std::ranges::all_of(values, [](const Json& v) { return v.is_string(); });
    if (!strings || values.empty()) return Bad(path, "expected names, strings");
    return Schema(schema, path);
  }
  for (const auto& [key, value] : schema.items()) {
    const bool fits =
        !IsOneOf(key, kWhole) && !IsOneOf(key, kUnenforced) && (key != "type" || value == "string");
    if (!fits) return Unsupported(path, key, "not supported for names");
  }
  return OfString(schema, path);
}

// All of prefixItems are written, then items.
Result<Piece> SchemaCompiler::OfArray(const Json& schema, const std::string& path) {
  CACHALOT_TRY(const auto least, Count(schema, "minItems", path));
  CACHALOT_TRY(auto most, Count(schema, "maxItems", path));
  if (least && most && *least > *most) return Bad(path, "minItems is above maxItems");
  std::vector<Piece> first;
  if (const auto list = schema.find("prefixItems"); list != schema.end()) {
    if (!list->is_array()) return Bad(StrCat(path, ".prefixItems"), "expected schemas");
    for (size_t i = 0; i < list->size() && (!most || i < *most); ++i) {
      CACHALOT_TRY(const Piece item, Schema((*list)[i], StrCat(path, ".prefixItems[", i, "]")));
      first.push_back(item);
    }
  }
  const auto items = schema.find("items");
  const uint32_t rule = nfa_.DeclareRule();
  if (items == schema.end()) {
    nfa_.DefineRule(rule, json_.Value());
  } else if (items->is_boolean() && !items->get<bool>()) {
    if (least.value_or(0) > first.size()) return Bad(path, "minItems is above what items allows");
    most = first.size();
  } else {
    CACHALOT_TRY(const Piece item, Schema(*items, StrCat(path, ".items")));
    nfa_.DefineRule(rule, item);
  }
  std::optional<uint32_t> bound;
  if (most) bound = static_cast<uint32_t>(*most);
  return json_.Array(
      first, [&] { return nfa_.CallRule(rule); }, static_cast<uint32_t>(least.value_or(0)), bound);
}

Result<Piece> SchemaCompiler::OfString(const Json& schema, const std::string& path) {
  CACHALOT_TRY(const auto condition, StringCondition(schema, path));
  if (condition && (schema.contains("pattern") || schema.contains("format"))) {
    return nfa_.Sequence({nfa_.Literal("\""), texts_.InJson(*condition), nfa_.Literal("\"")});
  }
  CACHALOT_TRY(const auto least, Count(schema, "minLength", path));
  CACHALOT_TRY(const auto most, Count(schema, "maxLength", path));
  std::optional<uint32_t> bound;
  if (most) bound = static_cast<uint32_t>(*most);
  return json_.String(static_cast<uint32_t>(least.value_or(0)), bound);
}

Result<std::optional<TextAutomaton>> SchemaCompiler::StringCondition(const Json& schema,
                                                                     const std::string& path) {
  std::optional<TextAutomaton> all;
  const auto add = [&](const char* key, Result<TextAutomaton> one) -> Status {
    const auto named = [&](const Error& error) {
      return Error{error.code, StrCat(path, ".", key, ": ", error.message)};
    };
    if (!one.ok()) return named(one.error());
    if (all) {
      auto both = Intersect(*all, *one);
      if (!both.ok()) return named(both.error());
      one = std::move(both);
    }
    if (one->empty()) return Bad(StrCat(path, ".", key), "no text can be so");
    all = std::move(one).value();
    return {};
  };
  for (const char* key : {"pattern", "format"}) {
    const auto field = schema.find(key);
    if (field == schema.end()) continue;
    if (!field->is_string()) return Bad(StrCat(path, ".", key), "expected a string");
    const bool format = std::string_view(key) == "format";
    const std::string pattern =
        format ? PatternOfFormat(field->get<std::string>()) : field->get<std::string>();
    if (format && pattern.empty()) {
      return Unsupported(path, key, StrCat("not enforced by this server, only ", kFormats));
    }
    CACHALOT_RETURN_IF_ERROR(add(key, CompileRegex(pattern)));
  }
  CACHALOT_TRY(const auto least, Count(schema, "minLength", path));
  CACHALOT_TRY(const auto most, Count(schema, "maxLength", path));
  if (least && most && *least > *most) return Bad(path, "minLength is above maxLength");
  if (least || most) {
    std::optional<uint32_t> bound;
    if (most) bound = static_cast<uint32_t>(*most);
    const auto length = OfLength(static_cast<uint32_t>(least.value_or(0)), bound);
    CACHALOT_RETURN_IF_ERROR(add(most ? "maxLength" : "minLength", length));
  }
  return all;
}

Result<Piece> SchemaCompiler::OfNumber(bool integer, const Json& schema, const std::string& path) {
  NumberBounds bounds;
  CACHALOT_TRY(bounds.low, Number(schema, "minimum", path));
  CACHALOT_TRY(bounds.high, Number(schema, "maximum", path));
  CACHALOT_TRY(const auto above, Number(schema, "exclusiveMinimum", path));
  CACHALOT_TRY(const auto below, Number(schema, "exclusiveMaximum", path));
  Tighten(above, 1, bounds.low, bounds.low_open);
  Tighten(below, -1, bounds.high, bounds.high_open);
  CACHALOT_TRY(const auto divisor, Number(schema, "multipleOf", path));
  if (!bounds.low && !bounds.high && !divisor) {
    return integer ? json_.Integer() : json_.Number(/*negative=*/true);
  }
  TextAutomaton numbers = NumbersBetween(integer, bounds);
  if (divisor) {
    if (divisor->negative || divisor->IsZero()) {
      return Bad(StrCat(path, ".multipleOf"), "expected a number above 0");
    }
    const auto multiples = MultiplesOf(*divisor);
    if (!multiples.ok()) return Unsupported(path, "multipleOf", multiples.error().message);
    auto both = Intersect(numbers, *multiples);
    if (!both.ok()) return Unsupported(path, "multipleOf", both.error().message);
    numbers = std::move(both).value();
  }
  if (numbers.empty()) {
    return Bad(path, integer ? "no integer lies between the bounds"
                             : "no number of 15 digits lies between the bounds");
  }
  return texts_.Plain(numbers);
}

}  // namespace cachalot::grammar
