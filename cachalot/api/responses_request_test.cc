// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/test_support.h"
#include "cachalot/base/strings.h"

namespace cachalot::api {
namespace {

GenerateRequest Responses(std::string_view body) { return Accepted(Surface::kResponses, body); }
std::string RefusedBody(std::string_view body) { return Refused(Surface::kResponses, body); }
std::string Items(std::string_view items) {
  return StrCat(R"({"reasoning":{"effort":"none"},"input":[)", items, "]}");
}

TEST(ResponsesRequest, ReadsWhatCodexSends) {
  const GenerateRequest request = Responses(
      R"({"model":"m","instructions":"I","input":[
            {"type":"message","role":"developer","content":[{"type":"input_text","text":"D"}]},
            {"role":"user","content":[{"type":"input_text","text":"u"},{"type":"input_image"}]}],
          "tools":[{"type":"function","name":"f","description":"d","strict":false,
                    "parameters":{"type":"object"}},
                   {"type":"custom","name":"apply_patch","description":"p",
                    "format":{"type":"grammar","syntax":"lark","definition":"start: x"}},
                   {"type":"namespace","name":"n","tools":[{"type":"function","name":"g"}]},
                   {"type":"web_search"}],
          "tool_choice":"auto","parallel_tool_calls":false,"reasoning":{"effort":"max"},
          "store":false,"stream":true,"include":["reasoning.encrypted_content"],
          "prompt_cache_key":"k","max_output_tokens":7,"text":{"verbosity":"low"}})");
  EXPECT_EQ(request.effort->name, "max");
  EXPECT_TRUE(request.stream);
  EXPECT_FALSE(request.parallel_tool_calls || request.logprobs);
  EXPECT_EQ(request.max_tokens, 7u);
  EXPECT_EQ(request.custom_tools, (std::vector<std::string>{"apply_patch"}));
  ASSERT_EQ(request.schemas.size(), 3u);
  EXPECT_EQ(request.schemas[2].name, "n::g");
  EXPECT_TRUE(request.schemas[1].HasProperty("input"));
  const std::string prompt = PromptOf(request);
  EXPECT_NE(prompt.find("I\n\nD\n\n## Tools"), std::string::npos);
  EXPECT_NE(prompt.find("<|User|>u\n\n[Unsupported input_image]<|Assistant|><think>"),
            std::string::npos);
}

TEST(ResponsesRequest, TheAssistantsItemsAreOneMessage) {
  const GenerateRequest request = Responses(Items(
      R"({"role":"user","content":"u"},
         {"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"r1"},
           {"type":"reasoning_text","text":"r2"}],"encrypted_content":"x"},
         {"type":"message","role":"assistant","phase":"x","content":[
           {"type":"output_text","text":"a","annotations":[]}]},
         {"type":"function_call","call_id":"1","name":"f","arguments":"{}"},
         {"type":"custom_tool_call","call_id":"2","name":"p","input":"say \"x\""},
         {"type":"web_search_call","id":"w"},
         {"type":"custom_tool_call_output","call_id":"2","output":"B"},
         {"type":"function_call_output","call_id":"1","output":[{"type":"input_text","text":"A"}]})"));
  ASSERT_EQ(request.conversation.messages.size(), 4u);
  const chat::Message& assistant = request.conversation.messages[1];
  EXPECT_EQ(assistant.reasoning_content, "r1\nr2");
  EXPECT_EQ(assistant.content, "a");
  ASSERT_EQ(assistant.tool_calls.size(), 2u);
  EXPECT_EQ(assistant.tool_calls[1].arguments, R"({"input": "say \"x\""})");
  EXPECT_TRUE(PromptOf(request).ends_with(
      "<tool_result>A</tool_result>\n\n<tool_result>B</tool_result><|Assistant|></think>"));
}

TEST(ResponsesRequest, InstructionsAloneAreAnswered) {
  EXPECT_EQ(PromptOf(Responses(R"({"instructions":"I","reasoning":{"effort":"none"}})")),
            "<|begin_of_sentence|>I<|User|><|Assistant|></think>");
  EXPECT_EQ(PromptOf(Responses(R"({"input":"u","reasoning":{"effort":"none"}})")),
            "<|begin_of_sentence|><|User|>u<|Assistant|></think>");
}

TEST(ResponsesRequest, SchemaAndLogprobs) {
  const GenerateRequest request = Responses(
      R"({"input":"u","include":["message.output_text.logprobs"],"text":{"format":
          {"type":"json_schema","name":"codex_output_schema","schema":{"a":1},"strict":true}}})");
  EXPECT_EQ(request.schema, "{\"a\": 1}");
  EXPECT_TRUE(request.logprobs);
  EXPECT_EQ(RefusedBody(R"({"input":"u","text":{"format":{"type":"json_object"}}})"),
            "text.format | Prompt must contain the word 'json' in some form to use 'text.format' "
            "of type 'json_object'.");
}

TEST(ResponsesRequest, EveryRuleNamesItsField) {
  EXPECT_EQ(RefusedBody("{}"), "input | Either input or instructions must be provided");
  EXPECT_EQ(RefusedBody(R"({"input":"x","previous_response_id":"r"})"),
            "previous_response_id | previous_response_id: responses are not stored here; send the "
            "whole conversation as input");
  const std::string call = R"({"type":"function_call","call_id":"1","name":"f","arguments":"{}"})";
  EXPECT_EQ(RefusedBody(Items(call)), "input | No tool output found for tool call 1.");
  EXPECT_EQ(RefusedBody(Items(call + "," + call)), "input[1].call_id | Duplicate 'call_id': 1.");
  EXPECT_EQ(RefusedBody(Items(R"({"type":"function_call_output","call_id":"1","output":"x"})")),
            "input[0] | No tool call found for tool output with call_id 1.");
  EXPECT_TRUE(RefusedBody(Items(R"({"role":"user","content":"u"},
                                   {"role":"assistant","content":"a"})"))
                  .starts_with("input | input: the last message is the assistant's"));
  EXPECT_TRUE(RefusedBody(R"({"input":"x","tools":[{"name":"f"}]})").starts_with("tools[0].type"));
}

}  // namespace
}  // namespace cachalot::api
