// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/test_support.h"
#include "cachalot/base/strings.h"

namespace cachalot::api {
namespace {

GenerateRequest Messages(std::string_view body) { return Accepted(Surface::kMessages, body); }
std::string RefusedBody(std::string_view body) { return Refused(Surface::kMessages, body); }

std::string With(std::string_view fields) {
  return StrCat(R"({"max_tokens":9,"messages":[{"role":"user","content":"Hi"}])",
                fields.empty() ? "" : ",", fields, "}");
}
std::string Turns(std::string_view messages) {
  return StrCat(R"({"max_tokens":9,"thinking":{"type":"disabled"},"messages":[)", messages, "]}");
}

TEST(MessagesRequest, ReadsEveryOption) {
  const GenerateRequest request = Messages(With(
      R"("model":"claude-opus[1m]","stream":true,"temperature":1.0,"top_p":0.9,"top_k":5,
         "stop_sequences":["a"],"metadata":{"user_id":"{\"device\":\"x\"}"},"service_tier":"auto",
         "thinking":{"type":"enabled","budget_tokens":1024},"output_config":{"effort":"low"},
         "system":[{"type":"text","text":"x-anthropic-billing-header: cch=1;"},
                   {"type":"text","text":"A","cache_control":{"type":"ephemeral"}},
                   {"type":"text","text":"B"}])"));
  EXPECT_EQ(request.model, "claude-opus");
  EXPECT_TRUE(request.stream && request.thinking);
  EXPECT_EQ(request.effort->name, "low");
  EXPECT_EQ(request.max_tokens, 9u);
  EXPECT_EQ(request.user_id, "{\"device\":\"x\"}");
  EXPECT_EQ(PromptOf(request), "<|begin_of_sentence|>A\n\nB<|User|>Hi<|Assistant|><think>");
}

TEST(MessagesRequest, BlocksBecomeTheConversation) {
  const GenerateRequest request = Messages(Turns(
      R"({"role":"user","content":[{"type":"text","text":"u"},{"type":"image","source":{}}]},
         {"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},
           {"type":"redacted_thinking","data":"x"},{"type":"text","text":"a"},
           {"type":"tool_use","id":"1","name":"f","input":{"x":1}},
           {"type":"tool_use","id":"2","name":"f","input":{}}]},
         {"role":"user","content":[{"type":"tool_result","tool_use_id":"2","is_error":true}]},
         {"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":[
           {"type":"text","text":"r"},{"type":"image"}]},{"type":"text","text":"more"}]},
         {"role":"system","content":"note"})"));
  EXPECT_EQ(request.conversation.messages[1].reasoning_content, "t");
  EXPECT_EQ(request.conversation.messages[1].tool_calls[0].arguments, "{\"x\": 1}");
  const std::string prompt = PromptOf(request);
  EXPECT_TRUE(prompt.starts_with("<|begin_of_sentence|><|User|>u\n\n[Unsupported image]"));
  EXPECT_TRUE(prompt.ends_with(
      "<|User|><tool_result>r\n\n[Unsupported image]</tool_result>\n\n<tool_result></tool_result>"
      "\n\nmore\n\n<system-reminder>\nnote\n</system-reminder><|Assistant|></think>"))
      << prompt;
}

TEST(MessagesRequest, ALastAssistantMessageIsContinued) {
  const GenerateRequest request =
      Messages(Turns(R"({"role":"user","content":"u"},{"role":"assistant","content":"so"})"));
  EXPECT_TRUE(request.continue_last);
  EXPECT_EQ(PromptOf(request), "<|begin_of_sentence|><|User|>u<|Assistant|></think>so");
}

TEST(MessagesRequest, CallsAndResultsMustPair) {
  const std::string call = R"({"role":"user","content":"u"},{"role":"assistant","content":[
      {"type":"tool_use","id":"1","name":"f","input":{}},
      {"type":"tool_use","id":"2","name":"f","input":{}}]})";
  const std::string missing =
      "messages[1] | messages.1: `tool_use` ids were found without `tool_result` blocks "
      "immediately after: ";
  EXPECT_EQ(RefusedBody(Turns(call)), missing + "1, 2");
  EXPECT_EQ(RefusedBody(Turns(call + R"(,{"role":"user","content":"x"})")), missing + "1, 2");
  EXPECT_EQ(RefusedBody(Turns(call + R"(,{"role":"user","content":[
                {"type":"tool_result","tool_use_id":"1","content":"r"}]})")),
            missing + "2");
  const std::string unexpected = RefusedBody(Turns(
      R"({"role":"user","content":[{"type":"tool_result","tool_use_id":"q","content":"r"}]})"));
  EXPECT_TRUE(unexpected.starts_with(
      "messages[0] | messages.0: unexpected `tool_use_id` found in `tool_result` blocks: q"));
}

constexpr std::string_view kTools =
    R"("tools":[{"name":"f","description":"d","input_schema":{"type":"object"},
                 "cache_control":{"type":"ephemeral"}},
                {"type":"web_search_20250305","name":"web_search"}])";

TEST(MessagesRequest, OwnToolsAreOfferedAndServerToolsAreNot) {
  const GenerateRequest request = Messages(With(kTools));
  EXPECT_EQ(request.tool_choice, ToolChoice::kAuto);
  ASSERT_EQ(request.tools.size(), 1u);
  EXPECT_EQ(request.tools[0].keys, (std::vector<std::string>{"name", "description", "parameters"}));
}

TEST(MessagesRequest, ForcedCallsSwitchThinkingOffUnlessItWasAskedFor) {
  const auto body = [](std::string_view choice, std::string_view thinking) {
    return With(StrCat(kTools, R"(,"tool_choice":)", choice, thinking));
  };
  constexpr std::string_view kAny = R"({"type":"any","disable_parallel_tool_use":true})";
  for (const std::string_view thinking : {"", R"(,"thinking":{"type":"adaptive"})"}) {
    const GenerateRequest request = Messages(body(kAny, thinking));
    EXPECT_FALSE(request.thinking || request.parallel_tool_calls);
    EXPECT_EQ(request.tool_choice, ToolChoice::kRequired);
  }
  EXPECT_EQ(RefusedBody(body(kAny, R"(,"thinking":{"type":"enabled"})")),
            "tool_choice | Thinking mode does not support this tool_choice");
  EXPECT_EQ(Messages(body(R"({"type":"tool","name":"f"})", "")).tool_name, "f");
  EXPECT_EQ(RefusedBody(body(R"({"type":"tool","name":"web_search"})", "")),
            "tool_choice | tool_choice: no tool named 'web_search' was specified");
}

TEST(MessagesRequest, OutputSchema) {
  const GenerateRequest request = Messages(
      With(R"("output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}})"));
  EXPECT_EQ(request.output, OutputFormat::kJsonSchema);
  EXPECT_EQ(request.schema, "{\"type\": \"object\"}");
}

TEST(MessagesRequest, EveryRuleNamesItsField) {
  EXPECT_EQ(RefusedBody(R"({"messages":[{"role":"user","content":"Hi"}]})"),
            "max_tokens | Failed to deserialize the JSON body into the target type: missing field "
            "`max_tokens`");
  EXPECT_EQ(RefusedBody(Turns("")), "messages | messages: at least one message is required");
  EXPECT_EQ(RefusedBody(Turns(R"({"role":"tool","content":""})")),
            "messages[0].role | messages[0].role: is 'tool', expected one of user, assistant, "
            "system");
  EXPECT_EQ(RefusedBody(With(R"("thinking":{"type":"on"})")),
            "thinking.type | thinking.type: is 'on', expected one of enabled, disabled, adaptive");
  EXPECT_TRUE(RefusedBody(With(R"("tools":[{"name":"f"}])")).starts_with("tools[0].input_schema"));
  EXPECT_TRUE(RefusedBody(Turns(R"({"role":"assistant","content":[
      {"type":"tool_use","id":"1","name":"f","input":"x"}]})"))
                  .starts_with("messages[0].content[0].input | "));
}

TEST(CountTokens, NeedsNoMaxTokens) {
  const auto request =
      ParseCountTokens(R"({"messages":[{"role":"user","content":"Hi"}]})", {.format = kFormat});
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(TokenCountBody(Surface::kMessages, 12), "{\"input_tokens\":12}");
}

}  // namespace
}  // namespace cachalot::api
