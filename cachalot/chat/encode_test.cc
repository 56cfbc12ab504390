// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/encode.h"

#include <gtest/gtest.h>

#include "cachalot/base/strings.h"
#include "cachalot/chat/golden_cases.h"
#include "cachalot/chat/markers.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::chat {
namespace {

// The prompt of a request, or the error message.
std::string Render(const std::string& json, Format format = Format::kV4_0731) {
  Result<RenderRequest> request = RenderRequestFromJson(json, "test");
  if (!request.ok()) return request.error().message;
  request->options.format = format;
  const Result<std::string> prompt = EncodePrompt(request->conversation, request->options);
  return prompt.ok() ? *prompt : prompt.error().message;
}

std::string WithBos(std::string_view rest) { return StrCat(kBos, rest); }

class GoldenEncoding : public testing::TestWithParam<const char*> {};

TEST_P(GoldenEncoding, EveryPromptIsByteExact) {
  for (const JsonValue& golden : GoldenCases(GetParam())) {
    const Result<Format> format = ParseFormatName(TextOf(golden, "format"));
    ASSERT_TRUE(format.ok());
    EXPECT_EQ(Render(DumpPythonJson(golden), *format), TextOf(golden, "prompt"))
        << TextOf(golden, "name");
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenEncoding,
                         testing::Values("encode_v4_0731.json", "encode_v4_preview_effort.json",
                                         "encode_v4_1.json"));

class OfficialEncoding : public testing::TestWithParam<int> {};

// chat.md 10: the four official pairs, identical for the preview and 0731.
TEST_P(OfficialEncoding, IsByteExact) {
  const std::string folder = OfficialFolder();
  if (folder.empty()) GTEST_SKIP();
  const std::string input = ReadTestFile(StrCat(folder, "test_input_", GetParam(), ".json"));
  const std::string want = ReadTestFile(StrCat(folder, "test_output_", GetParam(), ".txt"));
  for (const Format format : {Format::kV4Preview, Format::kV4_0731}) {
    Result<RenderRequest> request = RenderRequestFromJson(input, "official");
    ASSERT_TRUE(request.ok()) << request.error().message;
    request->options.format = format;
    if (GetParam() == 4) request->options.thinking_mode = ThinkingMode::kChat;
    const Result<std::string> prompt = EncodePrompt(request->conversation, request->options);
    ASSERT_TRUE(prompt.ok()) << prompt.error().message;
    EXPECT_EQ(*prompt, want);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, OfficialEncoding, testing::Values(1, 2, 3, 4));

// The two examples of the official V4.1 README. [chat.md 6]
TEST(EncodeV41, ReadmeExamples) {
  EXPECT_EQ(Render(R"([{"role":"system","content":"You are a helpful assistant."},
                       {"role":"user","content":"What is 2+2?"}])",
                   Format::kV4_1),
            WithBos("<\uFF5CSystem\uFF5C>Reasoning Effort: 75 (range 1-100, the higher the value, "
                    "the more thorough the reasoning)\n\nYou are a helpful assistant."
                    "<\uFF5CUser\uFF5C>What is 2+2?<\uFF5CAssistant\uFF5C><think>"));
  EXPECT_EQ(Render(R"({"thinking_mode":"chat","messages":[{"role":"user","content":[
                       {"type":"text","text":"one"},{"type":"image_url"},
                       {"type":"text","text":"what?"}]}]})",
                   Format::kV4_1),
            WithBos("<\uFF5CUser\uFF5C>one\n\n<\uFF5C"
                    "deepseek_image\uFF5C>\n\nwhat?"
                    "<\uFF5CAssistant\uFF5C></think>"));
}

TEST(EncodeV41, RefusesImageMarkerInText) {
  EXPECT_NE(Render(R"([{"role":"user","content":"<\uff5cdeepseek_image\uff5c>"}])", Format::kV4_1)
                .find("stands for an image"),
            std::string::npos);
}

TEST(EncodeV41, RefusesDeveloperRole) {
  EXPECT_NE(Render(R"([{"role":"developer","content":"x"}])", Format::kV4_1).find("use 'system'"),
            std::string::npos);
}

TEST(EncodeV41, ToolNamespacesPrefixNamesAndDescriptions) {
  const std::string prompt = Render(
      R"({"tools":[{"type":"namespace","name":"crm","description":"Customers.","tools":[
            {"type":"function","function":{"name":"find","description":"Finds."}}]}],
          "messages":[{"role":"user","content":"go"},{"role":"assistant","tool_calls":[
            {"function":{"namespace":"crm","name":"find","arguments":"{}"}}]}]})",
      Format::kV4_1);
  EXPECT_NE(prompt.find(R"({"name": "crm::find", "description": "Customers.\nFinds."})"),
            std::string::npos)
      << prompt;
  EXPECT_NE(prompt.find(" invoke name=\"crm::find\">"), std::string::npos);
}

TEST(EncodeEffort, UnknownValuesAreRefusedInEveryFormat) {
  const auto with = [](const char* effort, Format format) {
    return Render(
        StrCat(R"({"messages":[{"role":"user","content":"x"}],"reasoning_effort":)", effort, "}"),
        format);
  };
  for (const auto& [effort, format] :
       std::vector<std::pair<const char*, Format>>{{"\"low\"", Format::kV4Preview},
                                                   {"\"xhigh\"", Format::kV4_0731},
                                                   {"75", Format::kV4_0731},
                                                   {"0", Format::kV4_1},
                                                   {"101", Format::kV4_1},
                                                   {"75.0", Format::kV4_1},
                                                   {"true", Format::kV4_1},
                                                   {"\"medium\"", Format::kV4_1}}) {
    EXPECT_TRUE(with(effort, format).starts_with("reasoning_effort: is ")) << effort;
  }
  EXPECT_EQ(with("null", Format::kV4_0731),
            WithBos("<\uFF5CUser\uFF5C>x<\uFF5CAssistant\uFF5C><think>"));
}

// SGLang #33140: 0731 efforts must not be read with preview rules.
TEST(EncodeEffort, SglangIssue33140TiersDifferBetweenGenerations) {
  const std::string high =
      R"({"messages":[{"role":"user","content":"x"}],"reasoning_effort":"high"})";
  const std::string max =
      R"({"messages":[{"role":"user","content":"x"}],"reasoning_effort":"max"})";
  EXPECT_EQ(Render(high, Format::kV4_0731), Render(max, Format::kV4Preview));
  EXPECT_NE(Render(high, Format::kV4_0731), Render(high, Format::kV4Preview));
  EXPECT_NE(Render(max, Format::kV4_0731), Render(max, Format::kV4Preview));
}

TEST(EncodeOptions, TopLevelToolsInsertAnEmptySystemMessage) {
  const std::string tool = R"([{"type":"function","function":{"name":"f"}}])";
  EXPECT_EQ(Render(StrCat(R"({"tools":)", tool, R"(,"messages":[{"role":"user","content":"x"}]})")),
            Render(StrCat(R"([{"role":"system","content":"","tools":)", tool,
                          R"(},{"role":"user","content":"x"}])")));
}

TEST(EncodeOptions, TopLevelFieldsGoToTheFirstSystemMessage) {
  EXPECT_EQ(
      Render(R"({"response_format":{"type":"json_object"},"thinking_mode":"chat",
                 "messages":[{"role":"system","content":"s"},{"role":"user","content":"x"}]})"),
      WithBos(
          "s\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to "
          "reply:\n{\"type\": \"json_object\"}<\uFF5CUser\uFF5C>x<\uFF5CAssistant\uFF5C></think>"));
}

TEST(EncodeOptions, BosCanBeLeftOut) {
  EXPECT_EQ(Render(R"({"add_default_bos_token":false,"thinking_mode":"chat",
                       "messages":[{"role":"user","content":"x"}]})"),
            "<\uFF5CUser\uFF5C>x<\uFF5CAssistant\uFF5C></think>");
}

TEST(EncodeOptions, ContextIsLookedBackAtAndNotRendered) {
  const std::string head = R"({"role":"user","content":"a"})";
  const std::string tail = R"({"role":"assistant","content":"b"},{"role":"user","content":"c"})";
  const std::string whole = Render(StrCat("[", head, ",", tail, "]"));
  const std::string rest = Render(StrCat(R"({"context":[)", head, R"(],"messages":[)", tail, "]}"));
  EXPECT_EQ(rest, StrCat("b", kEos, "<\uFF5CUser\uFF5C>c<\uFF5CAssistant\uFF5C><think>"));
  EXPECT_TRUE(whole.ends_with(rest));
}

TEST(EncodeOptions, ContextOrdersLaterToolResults) {
  const std::string prompt = Render(
      R"({"context":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[
            {"id":"1","function":{"name":"f","arguments":"{}"}},
            {"id":"2","function":{"name":"g","arguments":"{}"}}]}],
          "messages":[{"role":"tool","tool_call_id":"2","content":"two"},
                      {"role":"tool","tool_call_id":"1","content":"one"}]})");
  EXPECT_EQ(prompt,
            "<\uFF5CUser\uFF5C><tool_result>one</tool_result>\n\n<tool_result>two</tool_result>"
            "<\uFF5CAssistant\uFF5C><think>");
}

TEST(EncodeOptions, PrefixIsWoEosOnTheLastMessage) {
  const std::string user = R"({"role":"user","content":"x"},)";
  EXPECT_EQ(Render(StrCat("[", user, R"({"role":"assistant","content":"y","prefix":true}])")),
            Render(StrCat("[", user, R"({"role":"assistant","content":"y","wo_eos":true}])")));
  EXPECT_TRUE(Render(R"([{"role":"user","content":"x","prefix":true}])")
                  .starts_with("messages[0].prefix:"));
}

TEST(EncodeHistory, ArgumentsGivenAsObjectEqualTheirText) {
  const auto with = [](const char* arguments) {
    return Render(StrCat(R"([{"role":"assistant","tool_calls":[{"function":{"name":"f",)",
                         R"("arguments":)", arguments, "}}]}]"));
  };
  EXPECT_EQ(with(R"({"a":1.50})"), with(R"("{\"a\":1.50}")"));
  EXPECT_NE(with("\"[1]\"").find("name=\"arguments\" string=\"true\">[1]</"), std::string::npos);
}

// ds4 #635, cline #13348: dropping reasoning_content must not lose the turn with tools.
TEST(EncodeHistory, Ds4Issue635MissingReasoningRendersEmptyThink) {
  const std::string prompt =
      Render(R"({"tools":[{"type":"function","function":{"name":"f"}}],"messages":[
                 {"role":"user","content":"a"},{"role":"assistant","content":"b"},
                 {"role":"user","content":"c"}]})");
  EXPECT_NE(prompt.find("<think></think>b"), std::string::npos);
}

TEST(EncodeHistory, CallsAreWrittenAsTheModelWroteThem) {
  Conversation conversation{.messages = {UserMessage("Hi"), AssistantMessage("So: ")},
                            .context = {}};
  Message& answer = conversation.messages.back();
  answer.tool_calls = {{.id = "a", .name = "f", .arguments = "{}"}};
  const std::string rendered = EncodePrompt(conversation, {}).value();
  answer.calls_text = "<as written>";
  const std::string replayed = EncodePrompt(conversation, {}).value();
  EXPECT_TRUE(replayed.ends_with(StrCat("So: <as written>", kEos))) << replayed;
  const size_t before = rendered.find("So: ") + 4;
  EXPECT_EQ(replayed.substr(0, before), rendered.substr(0, before));
}

TEST(EncodeErrors, NameTheFieldsPath) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"[1]", "messages[0]: is a number, expected an object"},
      {"[{}]", "messages[0].role: missing or empty, expected a string"},
      {R"([{"role":"bot"}])",
       "messages[0].role: 'bot' is unknown, expected one of system, "
       "developer, user, assistant, tool, latest_reminder"},
      {R"([{"role":"user","content":5}])",
       "messages[0].content: is a number, expected a string, a list of parts or null"},
      {R"([{"role":"user","content":[{"text":"x"}]}])",
       "messages[0].content[0].type: missing or empty, expected a string"},
      {R"([{"role":"user"},{"role":"assistant","tool_calls":[{"function":{}}]}])",
       "messages[1].tool_calls[0].function.name: missing or empty, expected a string"},
      {R"([{"role":"developer","content":""}])",
       "messages[0].content: a developer message needs content"},
      {R"([{"role":"user","task":"dance"}])",
       "messages[0].task: 'dance' is unknown, expected one of action, query, authority, domain, "
       "title, read_url"},
      {R"({"tools":[{"type":"function"}],"messages":[]})",
       "tools[0].function: missing, expected an object with name and parameters"},
      {R"({"thinking_mode":"loud","messages":[]})",
       "thinking_mode: 'loud' is unknown, expected one of chat, thinking"},
      {R"({"drop_thinking":1,"messages":[]})",
       "drop_thinking: is a number, expected true or false"},
      {R"([{"role":"a\nb"}])",
       "messages[0].role: 'a\\nb' is unknown, expected one of system, "
       "developer, user, assistant, tool, latest_reminder"},
      {"{}", "test: no field 'messages'"},
      {"7", "test: is a number, expected an object with messages, or a list"},
  };
  for (const auto& [json, message] : cases) EXPECT_EQ(Render(json), message);
}

}  // namespace
}  // namespace cachalot::chat
