// SPDX-License-Identifier: Apache-2.0
// A streamed reply, put together as clients do, is the whole reply; wherever its texts are cut.
#include <random>

#include "cachalot/api/test_support.h"
#include "cachalot/base/strings.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::api {
namespace {

using chat::JsonValue;

std::string TextOf(const JsonValue& json, std::string_view key) {
  const JsonValue* value = json.Find(key);
  return value != nullptr && value->IsString() ? value->text : std::string();
}

std::string Dump(const JsonValue* json) {
  return json == nullptr ? "absent" : chat::DumpPythonJson(*json);
}

JsonValue Parse(std::string_view text) {
  const auto json = chat::ParseJsonValue(text, "reply");
  EXPECT_TRUE(json.ok()) << text;
  return json.ok() ? *json : JsonValue();
}

// The JSON of each event. Its form is checked on the way.
std::vector<JsonValue> Events(std::string_view stream) {
  std::vector<JsonValue> events;
  EXPECT_TRUE(stream.ends_with("\n\n"));
  while (!stream.empty()) {
    const size_t end = stream.find("\n\n");
    std::string_view event = stream.substr(0, end);
    stream.remove_prefix(end + 2);
    std::string name;
    if (event.starts_with("event: ")) {
      name = event.substr(7, event.find('\n') - 7);
      event.remove_prefix(event.find('\n') + 1);
    }
    EXPECT_TRUE(event.starts_with("data: "));
    EXPECT_EQ(event.find('\n'), std::string::npos);
    if (event == "data: [DONE]") continue;
    events.push_back(Parse(event.substr(6)));
    EXPECT_EQ(name, name.empty() ? "" : TextOf(events.back(), "type"));
  }
  return events;
}

struct Summary {
  std::string reasoning;
  std::string content;
  std::vector<std::string> calls;  // id, name, arguments
  std::string finish;
  std::string usage;

  std::string Joined() const {
    std::string out = StrCat("R:", reasoning, "\nC:", content, "\nF:", finish, "\nU:", usage);
    for (const std::string& call : calls) out += "\nT:" + call;
    return out;
  }
};

// chat.completion and its chunks: `key` is message or delta.
void AddChat(const JsonValue& body, std::string_view key, Summary& summary) {
  for (const JsonValue& choice : body.Find("choices")->items) {
    const JsonValue& message = *choice.Find(key);
    summary.reasoning += TextOf(message, "reasoning_content");
    summary.content += TextOf(message, "content");
    if (const JsonValue* calls = message.Find("tool_calls"); calls != nullptr) {
      for (const JsonValue& call : calls->items) {
        const JsonValue& function = *call.Find("function");
        const size_t index = std::stoul(call.Find("index")->text);
        summary.calls.resize(std::max(summary.calls.size(), index + 1));
        summary.calls[index] += TextOf(call, "id") + TextOf(function, "name");
        summary.calls[index] += TextOf(function, "arguments");
      }
    }
    summary.finish += TextOf(choice, "finish_reason");
  }
  if (const JsonValue* usage = body.Find("usage"); usage != nullptr && !usage->IsNull()) {
    summary.usage += Dump(usage);
  }
}

void AddCompletion(const JsonValue& body, Summary& summary) {
  for (const JsonValue& choice : body.Find("choices")->items) {
    summary.content += TextOf(choice, "text");
    summary.finish += TextOf(choice, "finish_reason");
  }
  if (const JsonValue* usage = body.Find("usage"); usage != nullptr) summary.usage += Dump(usage);
}

// A message of Anthropic's, put together from its events; the JSON of inputs as clients parse it.
std::string AnthropicMessage(const std::vector<JsonValue>& events) {
  std::vector<std::string> blocks;
  std::string input, head, tail;
  for (const JsonValue& event : events) {
    const std::string type = TextOf(event, "type");
    const JsonValue* delta = event.Find("delta");
    if (type == "content_block_start") {
      const JsonValue& block = *event.Find("content_block");
      blocks.push_back(TextOf(block, "type") + TextOf(block, "id") + TextOf(block, "name") + ":");
      EXPECT_EQ(event.Find("index")->text, std::to_string(blocks.size() - 1));
    } else if (type == "content_block_delta") {
      for (const std::string_view key : {"thinking", "text", "signature"}) {
        blocks.back() += TextOf(*delta, key);
      }
      input += TextOf(*delta, "partial_json");
    } else if (type == "content_block_stop" && !input.empty()) {
      const JsonValue parsed = Parse(input);
      blocks.back() += Dump(&parsed);
      input.clear();
    } else if (type == "message_delta") {
      tail = StrCat(Dump(delta->Find("stop_reason")), Dump(delta->Find("stop_sequence")),
                    Dump(event.Find("usage")));
    }
  }
  for (const std::string& block : blocks) head += block + "\n";
  return head + tail;
}

std::string AnthropicBody(const JsonValue& body) {
  std::string out;
  for (const JsonValue& block : body.Find("content")->items) {
    out += TextOf(block, "type") + TextOf(block, "id") + TextOf(block, "name") + ":" +
           TextOf(block, "thinking") + TextOf(block, "text");
    if (block.Find("input") != nullptr) out += Dump(block.Find("input"));
    out += TextOf(block, "signature") + "\n";
  }
  return StrCat(out, Dump(body.Find("stop_reason")), Dump(body.Find("stop_sequence")),
                Dump(body.Find("usage")));
}

// The last event's response, after the items' own events were held against it.
std::string ResponsesFinal(const std::vector<JsonValue>& events) {
  const JsonValue& response = *events.back().Find("response");
  std::string items, deltas, texts;
  for (size_t i = 0; i < events.size(); ++i) {
    const std::string type = TextOf(events[i], "type");
    EXPECT_EQ(events[i].Find("sequence_number")->text, std::to_string(i));
    if (type == "response.output_item.done") items += Dump(events[i].Find("item")) + ", ";
    if (type.ends_with(".delta")) deltas += TextOf(events[i], "delta");
    if (type.ends_with("text.done")) texts += TextOf(events[i], "text");
    if (type.ends_with("arguments.done")) texts += TextOf(events[i], "arguments");
    if (type.ends_with("input.done")) texts += TextOf(events[i], "input");
  }
  EXPECT_EQ(deltas, texts);
  if (!items.empty()) items.resize(items.size() - 2);
  EXPECT_EQ(Dump(response.Find("output")), "[" + items + "]");
  return Dump(&response);
}

std::string SummaryOfStream(Surface surface, const std::string& stream) {
  const std::vector<JsonValue> events = Events(stream);
  Summary summary;
  if (surface == Surface::kMessages) return AnthropicMessage(events);
  if (surface == Surface::kResponses) return ResponsesFinal(events);
  for (const JsonValue& event : events) {
    if (surface == Surface::kChat) AddChat(event, "delta", summary);
    if (surface == Surface::kCompletions) AddCompletion(event, summary);
  }
  EXPECT_TRUE(stream.ends_with("data: [DONE]\n\n"));
  return summary.Joined();
}

std::string SummaryOfBody(Surface surface, const std::string& body) {
  const JsonValue json = Parse(body);
  Summary summary;
  if (surface == Surface::kMessages) return AnthropicBody(json);
  if (surface == Surface::kResponses) return Dump(&json);
  if (surface == Surface::kChat) AddChat(json, "message", summary);
  if (surface == Surface::kCompletions) AddCompletion(json, summary);
  return summary.Joined();
}

GenerateRequest RequestFor(Surface surface, bool stream) {
  GenerateRequest request;
  request.surface = surface;
  request.stream = stream;
  request.custom_tools = {"custom"};
  if (surface == Surface::kCompletions) request.prompts = {{.text = "p"}};
  return request;
}

// The texts of some replies, each with its way to end.
struct Script {
  std::vector<Delta> deltas;
  Finish finish;
};

std::vector<Script> Scripts(Surface surface) {
  std::vector<Script> scripts = {
      {{}, Finish::kStop},
      {{Content("A \"quote\"\n\u00e9\u4e2d")}, Finish::kStop},
      {{Reasoning("thinking\t"), Content("done")}, Finish::kLength},
      {{Reasoning("only")}, Finish::kStop},
  };
  if (surface == Surface::kCompletions) return scripts;
  scripts.push_back(
      {{Reasoning("r"), Content("c"), CallStart("f"), Arguments("{\"a\": [1, \"x\"]}"), CallEnd(),
        CallStart("g"), Arguments("{}"), CallEnd()},
       Finish::kToolCalls});
  scripts.push_back(
      {{CallStart("custom"), Arguments("{\"input\": \"*** \\\"\\n\\u00e9\"}"), CallEnd()},
       Finish::kStop});
  return scripts;
}

bool IsBoundary(const std::string& text, size_t at) {
  return (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80;
}

bool IsText(const Delta& delta) {
  return delta.kind == Delta::Kind::kReasoning || delta.kind == Delta::Kind::kContent ||
         delta.kind == Delta::Kind::kArguments;
}

// `deltas` with the text of number `which` cut before byte `at`.
std::vector<Delta> CutAt(std::vector<Delta> deltas, size_t which, size_t at) {
  Delta rest = deltas[which];
  rest.text = rest.text.substr(at);
  deltas[which].text.resize(at);
  deltas.insert(deltas.begin() + static_cast<ptrdiff_t>(which) + 1, std::move(rest));
  return deltas;
}

class ReplyEquality : public testing::TestWithParam<Surface> {};

TEST_P(ReplyEquality, StreamedIsWholeAtEverySplit) {
  const Surface surface = GetParam();
  for (const Script& script : Scripts(surface)) {
    const Ending ending{.finish = script.finish};
    const std::string whole =
        SummaryOfBody(surface, Reply(RequestFor(surface, false), script.deltas, ending));
    const auto check = [&](const std::vector<Delta>& deltas) {
      const auto stream = Reply(RequestFor(surface, true), deltas, ending);
      EXPECT_EQ(SummaryOfStream(surface, stream), whole);
      EXPECT_EQ(SummaryOfBody(surface, Reply(RequestFor(surface, false), deltas, ending)), whole);
    };
    check(script.deltas);
    for (size_t i = 0; i < script.deltas.size(); ++i) {
      if (!IsText(script.deltas[i])) continue;
      for (size_t at = 1; at < script.deltas[i].text.size(); ++at) {
        if (IsBoundary(script.deltas[i].text, at)) check(CutAt(script.deltas, i, at));
      }
    }
  }
}

TEST_P(ReplyEquality, StreamedIsWholeAtManySplits) {
  const Surface surface = GetParam();
  std::mt19937 random(20260424);
  for (int round = 0; round < 50; ++round) {
    for (const Script& script : Scripts(surface)) {
      std::vector<Delta> deltas = script.deltas;
      for (size_t i = 0; i < deltas.size(); ++i) {
        const size_t size = deltas[i].text.size();
        if (!IsText(deltas[i]) || size < 2) continue;
        const size_t at = 1 + random() % (size - 1);
        if (IsBoundary(deltas[i].text, at)) deltas = CutAt(deltas, i, at);
      }
      const Ending ending{.finish = script.finish};
      EXPECT_EQ(SummaryOfStream(surface, Reply(RequestFor(surface, true), deltas, ending)),
                SummaryOfBody(surface, Reply(RequestFor(surface, false), script.deltas, ending)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Surfaces, ReplyEquality, testing::ValuesIn(kSurfaces));

TEST(KeepAlive, IsACommentOrAPing) {
  EXPECT_EQ(KeepAliveBytes(Surface::kChat), ": keep-alive\n\n");
  EXPECT_EQ(KeepAliveBytes(Surface::kMessages), "event: ping\ndata: {\"type\":\"ping\"}\n\n");
}

}  // namespace
}  // namespace cachalot::api
