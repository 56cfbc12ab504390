// SPDX-License-Identifier: Apache-2.0
// Every value of a valid request replaced by values of every kind: accepted, or refused with an
// error that names the field; never a crash.
#include "cachalot/api/test_support.h"
#include "cachalot/base/strings.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::api {
namespace {

using chat::JsonValue;

constexpr std::string_view kChatBody = R"({
  "model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":1,"top_p":1,
  "min_p":0,"top_k":3,"seed":1,"presence_penalty":0,"frequency_penalty":0,"repetition_penalty":1,
  "logit_bias":{"1":2},"n":2,"stop":["a"],"max_tokens":5,"max_completion_tokens":5,"logprobs":true,
  "top_logprobs":2,"user_id":"u","user":"u","thinking":{"type":"enabled"},
  "reasoning_effort":"high","chat_template_kwargs":{"thinking":true,"reasoning_effort":"low"},
  "tools":[{"type":"function","function":{"name":"f","description":"d","strict":true,
            "parameters":{"type":"object"}}},
           {"type":"namespace","name":"n","description":"d","tools":[{"function":{"name":"g"}}]}],
  "tool_choice":"auto","parallel_tool_calls":true,"add_generation_prompt":false,
  "continue_final_message":true,
  "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{}}},
  "messages":[{"role":"system","content":[{"type":"text","text":"json"}]},
    {"role":"user","content":"u","name":"x"},
    {"role":"assistant","content":null,"reasoning_content":"r","reasoning":"r","tool_calls":[
      {"id":"a","type":"function","function":{"name":"f","arguments":"{}","namespace":"n"}}]},
    {"role":"tool","tool_call_id":"a","content":[{"type":"text","text":"t"}]},
    {"role":"assistant","content":"so","prefix":true}]})";

constexpr std::string_view kCompletionsBody = R"({
  "model":"m","prompt":["a","b"],"suffix":"s","max_tokens":3,"temperature":1,"top_p":1,
  "stop":"x","stream":true,"stream_options":{"include_usage":false},"echo":false,"logprobs":2,
  "n":1,"logit_bias":[[1,2.5],[3,false]],"user":"u"})";

constexpr std::string_view kMessagesBody = R"({
  "model":"m","max_tokens":9,"system":[{"type":"text","text":"s","cache_control":{"type":"e"}}],
  "stop_sequences":["a"],"stream":false,"temperature":1,"top_p":1,"top_k":4,
  "thinking":{"type":"adaptive","budget_tokens":1},"metadata":{"user_id":"u"},
  "output_config":{"effort":"low","format":{"type":"json_schema","schema":{}}},
  "tools":[{"name":"f","description":"d","input_schema":{},"strict":true}],
  "tool_choice":{"type":"auto","disable_parallel_tool_use":true},
  "messages":[{"role":"user","content":[{"type":"text","text":"u"}]},
    {"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},
      {"type":"tool_use","id":"1","name":"f","input":{"x":[1]}}]},
    {"role":"user","content":[{"type":"tool_result","tool_use_id":"1","is_error":false,
      "content":[{"type":"text","text":"r"}]}]}]})";

constexpr std::string_view kResponsesBody = R"({
  "model":"m","instructions":"I","max_output_tokens":3,"temperature":1,"top_p":1,"top_logprobs":1,
  "user":"u","stream":true,"store":false,"include":["x"],"parallel_tool_calls":true,
  "reasoning":{"effort":"high","summary":"auto"},"tool_choice":"auto",
  "text":{"format":{"type":"json_schema","name":"n","schema":{},"strict":true}},
  "tools":[{"type":"function","name":"f","description":"d","parameters":{},"strict":false},
    {"type":"custom","name":"c","format":{"type":"grammar","definition":"g"}}],
  "input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"u"}]},
    {"type":"reasoning","content":[{"type":"reasoning_text","text":"r"}],"summary":[]},
    {"type":"function_call","call_id":"1","name":"f","arguments":"{}"},
    {"type":"custom_tool_call","call_id":"2","name":"c","input":"i"},
    {"type":"function_call_output","call_id":"1","output":"o"},
    {"type":"custom_tool_call_output","call_id":"2","output":[{"type":"input_text","text":"o"}]}]})";

std::string_view BodyOf(Surface surface) {
  switch (surface) {
    case Surface::kChat:
      return kChatBody;
    case Surface::kCompletions:
      return kCompletionsBody;
    case Surface::kMessages:
      return kMessagesBody;
    case Surface::kResponses:
      break;
  }
  return kResponsesBody;
}

std::vector<JsonValue> Replacements() {
  const auto json = chat::ParseJsonValue(
      R"([null, true, false, -1.5, 7, 1.0, 18446744073709551616, 1e999, "", "x", [], [null], [[1]],
          {}, {"type": "x"}, {"type": 3}])",
      "replacements");
  return json->items;
}

// All values below one, with the keys on the way to them; inner ones first, as assigning to an
// outer one moves them.
void Collect(JsonValue& value, const std::vector<std::string>& keys,
             std::vector<std::pair<JsonValue*, std::vector<std::string>>>& out) {
  for (size_t i = 0; i < value.items.size(); ++i) {
    std::vector<std::string> inner = keys;
    if (value.IsObject()) inner.push_back(value.keys[i]);
    Collect(value.items[i], inner, out);
    out.emplace_back(&value.items[i], inner);
  }
}

bool NamesOneOf(const ApiError& error, const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    if (error.param.find(key) != std::string::npos) return true;
    if (error.message.find(key) != std::string::npos) return true;
  }
  return false;
}

class WrongTypes : public testing::TestWithParam<Surface> {};

TEST_P(WrongTypes, AreRefusedByNameOrAccepted) {
  for (const auto format : {chat::Format::kV4_0731, chat::Format::kV4_1}) {
    Accepted(GetParam(), BodyOf(GetParam()), format);
    JsonValue body = *chat::ParseJsonValue(BodyOf(GetParam()), "body");
    std::vector<std::pair<JsonValue*, std::vector<std::string>>> places;
    Collect(body, {}, places);
    for (const auto& [place, keys] : places) {
      const JsonValue original = *place;
      for (const JsonValue& replacement : Replacements()) {
        *place = replacement;
        const std::string text = chat::DumpPythonJson(body);
        const auto request = ParseRequest(GetParam(), text, {.format = format});
        if (request.ok()) {
          const auto prompt =
              chat::EncodePrompt(request->conversation, EncodeOptionsOf(*request, format));
          EXPECT_TRUE(prompt.ok()) << text << (prompt.ok() ? "" : prompt.error().message);
          continue;
        }
        if (text.find("Infinity") != std::string::npos) continue;  // no JSON any more
        EXPECT_EQ(request.error().status, 400) << text;
        const bool scalar =
            original.kind == JsonValue::Kind::kBool || original.kind == JsonValue::Kind::kNumber;
        const auto accepted_names = scalar ? std::vector<std::string>{keys.back()} : keys;
        EXPECT_TRUE(NamesOneOf(request.error(), accepted_names))
            << text << "\n"
            << request.error().param << " | " << request.error().message;
      }
      *place = original;
    }
  }
}

TEST_P(WrongTypes, TruncatedBodiesAreRefused) {
  const std::string_view body = BodyOf(GetParam());
  for (size_t size = 0; size < body.size(); ++size) {
    EXPECT_FALSE(ParseRequest(GetParam(), body.substr(0, size), {.format = kFormat}).ok()) << size;
  }
}

INSTANTIATE_TEST_SUITE_P(Surfaces, WrongTypes, testing::ValuesIn(kSurfaces));

}  // namespace
}  // namespace cachalot::api
