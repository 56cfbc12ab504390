// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>

#include "cachalot/base/strings.h"
#include "cachalot/chat/json_fields.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::api {
namespace {

using chat::JsonValue;

constexpr size_t kMaxStops = 16;
constexpr size_t kMaxUserIdBytes = 512;

struct Range {
  std::string_view key;
  double low;
  double high;
  bool low_is_open;
  std::string_view text;
};

ApiStatus ReadRange(const Object& body, const Range& range, std::optional<float>& out) {
  CACHALOT_TRY(const std::optional<double> value, body.Number(range.key));
  if (!value.has_value()) return {};
  const bool low_ok = range.low_is_open ? *value > range.low : *value >= range.low;
  if (low_ok && *value <= range.high) {
    out = static_cast<float>(*value);
    return {};
  }
  const std::string path = body.PathOf(range.key);
  if (range.key.ends_with("_penalty")) {
    return InvalidRequest(path, StrCat(path, " must be in ", range.text));
  }
  return InvalidRequest(
      path, StrCat("Invalid ", path, " value, the valid range of ", path, " is ", range.text));
}

// `key` of a JSON object, or a number: an id of the vocabulary.
ApiResult<uint32_t> BiasId(std::string_view text, const std::string& path) {
  uint32_t id = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), id);
  if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) return id;
  return InvalidRequest(
      path, StrCat(path, ": ", chat::Quoted(text), " is no token id, expected an integer"));
}

// false bans a token, as llama-server has it.
ApiResult<float> BiasValue(const JsonValue& json, const std::string& path) {
  constexpr float kBan = -100;
  if (json.kind == JsonValue::Kind::kBool && !json.boolean) return kBan;
  const std::optional<double> value = NumberOf(json);
  if (value.has_value() && std::abs(*value) <= 100) return static_cast<float>(*value);
  return InvalidRequest(path, StrCat(path, ": a bias must be a number in [-100, 100] or false"));
}

using Biases = std::map<uint32_t, float>;

ApiStatus AddBias(std::string_view id_text, const JsonValue& value, const std::string& path,
                  Biases& biases) {
  CACHALOT_TRY(const uint32_t id, BiasId(id_text, path));
  CACHALOT_TRY(const float bias, BiasValue(value, path));
  biases[id] = bias;
  return {};
}

ApiStatus ReadBiasPairs(const JsonValue& json, const std::string& path, Biases& biases) {
  for (size_t i = 0; i < json.items.size(); ++i) {
    const JsonValue& pair = json.items[i];
    const std::string at = ItemPath(path, i);
    if (!pair.IsArray() || pair.items.size() != 2) return WrongKind(at, pair, "[token id, bias]");
    CACHALOT_TRY(const int64_t id,
                 IntegerOf(pair.items[0], at, 0, std::numeric_limits<uint32_t>::max()));
    CACHALOT_RETURN_IF_ERROR(AddBias(std::to_string(id), pair.items[1], at, biases));
  }
  return {};
}

ApiStatus ReadLogitBias(const Object& body, Sampling& sampling) {
  const JsonValue* json = body.Find("logit_bias");
  if (json == nullptr) return {};
  const std::string path = body.PathOf("logit_bias");
  Biases biases;
  if (json->IsArray()) {
    CACHALOT_RETURN_IF_ERROR(ReadBiasPairs(*json, path, biases));
  } else if (json->IsObject()) {
    for (size_t i = 0; i < json->keys.size(); ++i) {
      CACHALOT_RETURN_IF_ERROR(AddBias(json->keys[i], json->items[i], path, biases));
    }
  } else {
    return WrongKind(path, *json, "an object of token ids and biases, or a list of pairs");
  }
  sampling.logit_bias.assign(biases.begin(), biases.end());
  return {};
}

// deepseek-chat and deepseek-reasoner, the names of two modes of one model. [api.md 3]
void ApplyAlias(std::string_view model, ThinkingWish& wish) {
  if (model == "deepseek-chat") wish.Say(false, true);
  if (model == "deepseek-reasoner") wish.Say(true, true);
}

ApiResult<std::string> UserId(const Object& body) {
  CACHALOT_TRY(std::optional<std::string> id, body.String("user_id"));
  if (!id.has_value()) {
    CACHALOT_TRY(id, body.String("user"));
    return id.value_or("");
  }
  const auto allowed = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_';
  };
  if (!id->empty() && std::all_of(id->begin(), id->end(), allowed)) return *std::move(id);
  return InvalidRequest("user_id", StrCat("user_id: is ", chat::Quoted(*id),
                                          ", expected letters, digits, '-' and '_'"));
}

}  // namespace

ApiStatus ReadModel(const Object& body, Draft& draft) {
  CACHALOT_TRY(std::optional<std::string> name, body.String("model"));
  std::string model = std::move(name).value_or("");
  // Claude Code appends the wanted context: "deepseek-v4-pro[1m]".
  if (const size_t bracket = model.rfind('['); model.ends_with(']') && bracket != std::string::npos)
    model.resize(bracket);
  ApplyAlias(model, draft.thinking);
  draft.request.model = std::move(model);
  return {};
}

ApiStatus ReadStream(const Object& body, GenerateRequest& request) {
  CACHALOT_TRY(request.stream, body.Bool("stream", false));
  CACHALOT_TRY(const std::optional<Object> options, body.Child("stream_options"));
  if (!options.has_value()) return {};
  if (!request.stream) {
    return InvalidRequest("stream_options",
                          "stream_options should be set along with stream = true");
  }
  CACHALOT_TRY(request.include_usage, options->Bool("include_usage", false));
  return {};
}

ApiStatus ReadSampling(const Object& body, Sampling& sampling) {
  CACHALOT_RETURN_IF_ERROR(
      ReadRange(body, {"temperature", 0, 2, false, "[0, 2]"}, sampling.temperature));
  CACHALOT_RETURN_IF_ERROR(ReadRange(body, {"top_p", 0, 1, true, "(0, 1]"}, sampling.top_p));
  CACHALOT_RETURN_IF_ERROR(ReadRange(body, {"min_p", 0, 1, false, "[0, 1]"}, sampling.min_p));
  CACHALOT_RETURN_IF_ERROR(
      ReadRange(body, {"presence_penalty", -2, 2, false, "[-2, 2]"}, sampling.presence_penalty));
  CACHALOT_RETURN_IF_ERROR(
      ReadRange(body, {"frequency_penalty", -2, 2, false, "[-2, 2]"}, sampling.frequency_penalty));
  // vLLM's name wins over llama-server's.
  for (const std::string_view key : {"repeat_penalty", "repetition_penalty"}) {
    CACHALOT_RETURN_IF_ERROR(
        ReadRange(body, {key, 0, 10, true, "(0, 10]"}, sampling.repetition_penalty));
  }
  CACHALOT_TRY(const std::optional<int64_t> top_k,
               body.Integer("top_k", -1, std::numeric_limits<int32_t>::max()));
  if (top_k.value_or(0) > 0) sampling.top_k = static_cast<uint32_t>(*top_k);
  CACHALOT_TRY(const std::optional<int64_t> seed,
               body.Integer("seed", 0, std::numeric_limits<int64_t>::max()));
  if (seed.has_value()) sampling.seed = static_cast<uint64_t>(*seed);
  return ReadLogitBias(body, sampling);
}

ApiStatus ReadStops(const Object& body, std::string_view key, GenerateRequest& request) {
  const JsonValue* json = body.Find(key);
  if (json == nullptr) return {};
  const std::string path = body.PathOf(key);
  const bool single = json->IsString();
  if (!single && !json->IsArray()) return WrongKind(path, *json, "a string or a list of strings");
  if (json->items.size() > kMaxStops) {
    return InvalidRequest(
        path, StrCat("ChatCompletionStopSequences string array too long: ", json->items.size(),
                     " (", path, ", at most ", kMaxStops, ")"));
  }
  if (single && !json->text.empty()) request.stops.push_back(json->text);
  for (size_t i = 0; i < json->items.size(); ++i) {
    const JsonValue& stop = json->items[i];
    if (!stop.IsString()) return WrongKind(ItemPath(path, i), stop, "a string");
    if (!stop.text.empty()) request.stops.push_back(stop.text);
  }
  return {};
}

ApiStatus ReadMaxTokens(const Object& body, std::initializer_list<std::string_view> keys,
                        const ParseContext& context, GenerateRequest& request) {
  for (const std::string_view key : keys) {
    CACHALOT_TRY(const std::optional<int64_t> value, body.Integer(key, 1, context.max_max_tokens));
    if (!value.has_value()) continue;
    if (!request.max_tokens.has_value()) request.max_tokens = static_cast<uint32_t>(*value);
  }
  return {};
}

ApiStatus ReadN(const Object& body, const ParseContext& context, GenerateRequest& request) {
  CACHALOT_TRY(
      const std::optional<int64_t> n,
      body.Integer("n", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()));
  if (n.has_value() && (*n < 1 || *n > context.max_n)) {
    return InvalidRequest(
        "n", StrCat("Invalid n value (currently n = 1 to ", context.max_n, " is supported)"));
  }
  request.n = static_cast<uint32_t>(n.value_or(1));
  return {};
}

ApiStatus ReadUser(const Object& body, GenerateRequest& request) {
  CACHALOT_TRY(request.user_id, UserId(body));
  if (request.user_id.size() <= kMaxUserIdBytes) return {};
  const std::string key = body.Find("user_id") != nullptr ? "user_id" : "user";
  return InvalidRequest(key, StrCat(key, ": is ", request.user_id.size(),
                                    " bytes, expected at most ", kMaxUserIdBytes));
}

ApiStatus ReadPriority(const Object& body, GenerateRequest& request) {
  constexpr int64_t kMost = 100;
  constexpr int32_t kTier = 10;
  const JsonValue* tier = body.Find("service_tier");
  if (tier != nullptr && tier->text == "priority") request.priority = -kTier;
  if (tier != nullptr && tier->text == "flex") request.priority = kTier;
  CACHALOT_TRY(const std::optional<int64_t> priority, body.Integer("priority", -kMost, kMost));
  if (priority.has_value()) request.priority = static_cast<int32_t>(*priority);
  return {};
}

ApiStatus ReadEffort(const Object& object, std::string_view key, const ParseContext& context,
                     ThinkingWish& wish) {
  constexpr std::array<std::string_view, 8> kNames = {"none", "minimal", "low", "medium",
                                                      "high", "xhigh",   "max", "ultra"};
  const JsonValue* json = object.Find(key);
  if (json == nullptr) return {};
  const std::string path = object.PathOf(key);
  const bool is_unset = wish.effort.empty() && !wish.level.has_value();
  if (json->kind == JsonValue::Kind::kNumber && context.format == chat::Format::kV4_1) {
    CACHALOT_TRY(const int64_t level, IntegerOf(*json, path, 1, 100));
    if (is_unset) wish.level = level;
    wish.Say(true, true);
    return {};
  }
  if (!json->IsString()) return WrongKind(path, *json, "the name of an effort");
  if (std::find(kNames.begin(), kNames.end(), json->text) == kNames.end()) {
    return UnknownName(path, json->text, "none, minimal, low, medium, high, xhigh, max, ultra");
  }
  const bool on = json->text != "none";
  if (on && is_unset) wish.effort = json->text;
  wish.Say(on, true);
  return {};
}

ApiStatus UseSchema(const JsonValue& schema, const std::string& path, Draft& draft) {
  if (!schema.IsObject()) return WrongKind(path, schema, "a JSON schema, an object");
  draft.request.output = OutputFormat::kJsonSchema;
  draft.request.schema = chat::DumpPythonJson(schema);
  draft.request.format_field = path;
  draft.response_format = schema;
  return {};
}

namespace {

ApiStatus UseText(const Object& holder, std::string_view key, OutputFormat output, Draft& draft) {
  CACHALOT_TRY(std::optional<std::string> text, holder.String(key));
  if (!text.has_value() || text->empty()) return {};  // llama-server's clients send ""
  draft.request.output = output;
  draft.request.schema = *std::move(text);
  draft.request.format_field = holder.PathOf(key);
  return {};
}

ApiStatus UseChoice(const Object& holder, std::string_view key, Draft& draft) {
  const JsonValue* json = holder.Find(key);
  if (json == nullptr) return {};
  const std::string path = holder.PathOf(key);
  CACHALOT_TRY(const auto list, holder.List(key));
  if (list.empty()) return InvalidRequest(path, StrCat(path, ": is an empty list"));
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].IsString()) return WrongKind(ItemPath(path, i), list[i], "a string");
  }
  draft.request.output = OutputFormat::kChoice;
  draft.request.schema = chat::DumpPythonJson(*json);
  draft.request.format_field = path;
  return {};
}

}  // namespace

ApiStatus ReadOtherFormats(const Object& body, Draft& draft) {
  CACHALOT_RETURN_IF_ERROR(UseText(body, "grammar", OutputFormat::kGrammar, draft));
  CACHALOT_RETURN_IF_ERROR(UseText(body, "guided_grammar", OutputFormat::kGrammar, draft));
  CACHALOT_RETURN_IF_ERROR(UseText(body, "guided_regex", OutputFormat::kRegex, draft));
  CACHALOT_RETURN_IF_ERROR(UseChoice(body, "guided_choice", draft));
  for (const std::string_view key : {"json_schema", "guided_json"}) {
    if (const JsonValue* schema = body.Find(key); schema != nullptr) {
      CACHALOT_RETURN_IF_ERROR(UseSchema(*schema, body.PathOf(key), draft));
    }
  }
  CACHALOT_TRY(const std::optional<Object> outputs, body.Child("structured_outputs"));
  if (!outputs.has_value()) return {};
  const bool none = draft.request.output == OutputFormat::kText;
  if (const JsonValue* schema = outputs->Find("json"); schema != nullptr) {
    CACHALOT_RETURN_IF_ERROR(UseSchema(*schema, "structured_outputs.json", draft));
  }
  CACHALOT_RETURN_IF_ERROR(UseText(*outputs, "grammar", OutputFormat::kGrammar, draft));
  CACHALOT_RETURN_IF_ERROR(UseText(*outputs, "regex", OutputFormat::kRegex, draft));
  CACHALOT_RETURN_IF_ERROR(UseChoice(*outputs, "choice", draft));
  if (none && draft.request.output == OutputFormat::kText) {
    return InvalidRequest("structured_outputs",
                          "structured_outputs: expected one of json, regex, choice, grammar");
  }
  return {};
}

ApiStatus ReadOutputFormat(const Object& format, Draft& draft) {
  CACHALOT_TRY(const std::string type, format.RequiredString("type"));
  if (type == "text") return {};
  if (type == "json_schema") {
    CACHALOT_TRY(const std::optional<Object> wrapper, format.Child("json_schema"));
    const Object& holder = wrapper.has_value() ? *wrapper : format;
    const JsonValue* schema = holder.Find("schema");
    if (schema == nullptr) return MissingField(holder.PathOf("schema"));
    return UseSchema(*schema, holder.PathOf("schema"), draft);
  }
  if (type != "json_object") {
    return UnknownName(format.PathOf("type"), type, "text, json_object, json_schema");
  }
  if (const JsonValue* schema = format.Find("schema"); schema != nullptr) {
    return UseSchema(*schema, format.PathOf("schema"), draft);
  }
  draft.request.output = OutputFormat::kJsonObject;
  draft.response_format = ObjectValue({{"type", StringValue("json_object")}});
  return {};
}

}  // namespace cachalot::api
