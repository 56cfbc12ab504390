// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/test_support.h"
#include "cachalot/base/strings.h"

namespace cachalot::api {
namespace {

GenerateRequest Chat(std::string_view body, chat::Format format = kFormat) {
  return Accepted(Surface::kChat, body, format);
}
std::string RefusedChat(std::string_view body) { return Refused(Surface::kChat, body); }

// A body with one user message and `fields`.
std::string With(std::string_view fields) {
  return StrCat(R"({"messages":[{"role":"user","content":"Hi, json?"}],)", fields, "}");
}

constexpr std::string_view kTool =
    R"("tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}},
                {"type":"function","function":{"name":"g","strict":true}}])";

std::string WithTools(std::string_view fields) { return With(StrCat(kTool, fields)); }

TEST(ChatRequest, DefaultsAreThinkingWithHighEffort) {
  const GenerateRequest request = Chat(With(R"("model":"m")"));
  EXPECT_TRUE(request.thinking);
  EXPECT_EQ(request.effort->name, "high");
  EXPECT_EQ(request.n, 1u);
  EXPECT_FALSE(request.stream || request.logprobs || request.max_tokens.has_value());
  EXPECT_EQ(request.tool_choice, ToolChoice::kNone);
  EXPECT_TRUE(PromptOf(request).ends_with("<|User|>Hi, json?<|Assistant|><think>"));
}

TEST(ChatRequest, ReadsEveryOption) {
  const GenerateRequest request = Chat(With(
      R"("model":"deepseek-v4-pro[1m]","stream":true,"stream_options":{"include_usage":true},
         "temperature":0,"top_p":0.5,"min_p":0.1,"top_k":4.0,"seed":9223372036854775807,
         "presence_penalty":-2,"frequency_penalty":2,"repeat_penalty":1.5,
         "logit_bias":{"7":-100,"3":1.5},"n":8,"stop":["a","","b"],"max_tokens":5,
         "max_completion_tokens":6.0,"logprobs":true,"top_logprobs":20,"user_id":"a-B_9",
         "parallel_tool_calls":false,"unknown":{"x":[1]},"tools":null,"response_format":null)"));
  EXPECT_EQ(request.model, "deepseek-v4-pro");
  EXPECT_TRUE(request.stream && request.include_usage && request.logprobs);
  EXPECT_EQ(request.sampling.temperature, 0.0F);
  EXPECT_EQ(request.sampling.top_k, 4u);
  EXPECT_EQ(request.sampling.seed, uint64_t{9223372036854775807});
  EXPECT_EQ(request.sampling.repetition_penalty, 1.5F);
  const std::vector<std::pair<uint32_t, float>> biases = {{3, 1.5F}, {7, -100.0F}};
  EXPECT_EQ(request.sampling.logit_bias, biases);
  EXPECT_EQ(request.n, 8u);
  EXPECT_EQ(request.stops, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(request.max_tokens, 6u);
  EXPECT_EQ(request.top_logprobs, 20u);
  EXPECT_EQ(request.user_id, "a-B_9");
  EXPECT_FALSE(request.parallel_tool_calls);
}

TEST(ChatRequest, LogitBiasTakesPairsAndBans) {
  const GenerateRequest request = Chat(With(R"("logit_bias":[[9,false],[2,5],[9,-3.0]])"));
  const std::vector<std::pair<uint32_t, float>> biases = {{2, 5.0F}, {9, -3.0F}};
  EXPECT_EQ(request.sampling.logit_bias, biases);
}

TEST(ChatRequest, ThinkingIsSettledByTheFirstThatSaysSo) {
  struct Case {
    std::string_view fields;
    bool thinking;
    std::string_view effort;
  };
  const Case cases[] = {
      {R"("thinking":{"type":"disabled"},"reasoning_effort":"max")", false, ""},
      {R"("thinking":{"type":"enabled"},"reasoning_effort":"none")", true, "high"},
      {R"("thinking":{"type":"enabled"},"reasoning_effort":"minimal")", true, "low"},
      {R"("reasoning_effort":"none","chat_template_kwargs":{"thinking":true})", false, ""},
      {R"("reasoning_effort":"ultra")", true, "max"},
      {R"("reasoning_effort":"xhigh")", true, "high"},
      {R"("reasoning_effort":"medium")", true, "high"},
      {R"("chat_template_kwargs":{"enable_thinking":false})", false, ""},
      {R"("chat_template_kwargs":{"reasoning_effort":"low"})", true, "low"},
      {R"("model":"deepseek-chat")", false, ""},
      {R"("model":"deepseek-reasoner")", true, "high"},
      {R"("model":"deepseek-chat","reasoning_effort":"high")", true, "high"},
  };
  for (const Case& c : cases) {
    const GenerateRequest request = Chat(With(c.fields));
    EXPECT_EQ(request.thinking, c.thinking) << c.fields;
    EXPECT_EQ(request.effort.has_value(), c.thinking) << c.fields;
    EXPECT_EQ(request.effort.has_value() ? request.effort->name : "", c.effort) << c.fields;
  }
}

TEST(ChatRequest, EffortIsInTheWordsOfTheFormat) {
  const std::string low = With(R"("reasoning_effort":"low")");
  EXPECT_EQ(Chat(low, chat::Format::kV4Preview).effort->name, "high");
  EXPECT_EQ(Chat(low, chat::Format::kV4_1).effort->level, 50);
  EXPECT_EQ(Chat(With(R"("reasoning_effort":33)"), chat::Format::kV4_1).effort->level, 33);
  EXPECT_EQ(RefusedChat(With(R"("reasoning_effort":33)")),
            "reasoning_effort | reasoning_effort: is a number, expected the name of an effort");
  for (const auto format :
       {chat::Format::kV4Preview, chat::Format::kV4_0731, chat::Format::kV4_1}) {
    for (const std::string_view name : {"minimal", "low", "medium", "high", "xhigh", "max"}) {
      const auto request = Chat(With(StrCat(R"("reasoning_effort":")", name, "\"")), format);
      EXPECT_FALSE(PromptOf(request, format).starts_with("error")) << name;
    }
  }
}

TEST(ChatRequest, ForcedCallsSwitchThinkingOffUnlessItWasAskedFor) {
  const GenerateRequest request = Chat(WithTools(R"(,"tool_choice":"required")"));
  EXPECT_FALSE(request.thinking);
  EXPECT_EQ(request.tool_choice, ToolChoice::kRequired);
  EXPECT_EQ(request.tools.size(), 2u);
  EXPECT_EQ(RefusedChat(WithTools(R"(,"tool_choice":"required","thinking":{"type":"enabled"})")),
            "tool_choice | Thinking mode does not support this tool_choice");
}

TEST(ChatRequest, ToolsReachThePromptAsTheSameThreeKeys) {
  const GenerateRequest request = Chat(WithTools(""));
  EXPECT_EQ(request.tool_choice, ToolChoice::kAuto);
  EXPECT_TRUE(request.strict_tools);
  EXPECT_EQ(request.strict, (std::vector<bool>{false, true}));
  const std::string prompt = PromptOf(request);
  EXPECT_NE(prompt.find("\n{\"name\": \"f\", \"description\": \"\", \"parameters\": {\"type\": "
                        "\"object\"}}\n{\"name\": \"g\", \"description\": \"\", \"parameters\": "
                        "{}}\n"),
            std::string::npos)
      << prompt;
}

TEST(ChatRequest, NamedChoiceShowsThatToolOnlyAndNoneShowsNothing) {
  const GenerateRequest named =
      Chat(WithTools(R"(,"tool_choice":{"type":"function","function":{"name":"g"}})"));
  EXPECT_EQ(named.tool_choice, ToolChoice::kNamed);
  ASSERT_EQ(named.schemas.size(), 1u);
  EXPECT_EQ(named.schemas[0].name, "g");
  const GenerateRequest none = Chat(WithTools(R"(,"tool_choice":"none")"));
  EXPECT_TRUE(none.tools.empty() && none.schemas.empty());
  EXPECT_EQ(PromptOf(none).find("## Tools"), std::string::npos);
}

TEST(ChatRequest, NamespacesArePartOfTheName) {
  const GenerateRequest request =
      Chat(With(R"("tools":[{"type":"namespace","name":"n","description":"D","tools":[
               {"type":"function","function":{"name":"f","description":"d"}}]}])"),
           chat::Format::kV4_1);
  EXPECT_EQ(request.schemas[0].name, "n::f");
  EXPECT_EQ(request.tools[0].Find("description")->text, "D\nd");
}

TEST(ChatRequest, MessagesAreArranged) {
  const GenerateRequest request = Chat(R"({"thinking":{"type":"disabled"},"messages":[
      {"role":"system","content":"A"},{"role":"system","content":""},
      {"role":"developer","content":[{"type":"text","text":"B"},{"type":"text","text":"C"}]},
      {"role":"user","content":[{"type":"text","text":"one"},{"type":"text","text":"two"}]},
      {"role":"assistant","content":"ok","reasoning":"r"},
      {"role":"system","content":"late"},{"role":"user","content":"three"}]})");
  EXPECT_EQ(PromptOf(request),
            "<|begin_of_sentence|>A\n\nB\n\nC<|User|>one\n\ntwo<|Assistant|></think>ok"
            "<|end_of_sentence|><|User|>late\n\nthree<|Assistant|></think>");
  EXPECT_EQ(request.conversation.messages[2].reasoning_content, "r");
}

TEST(ChatRequest, LateSystemMessagesStayInV41) {
  const GenerateRequest request = Chat(
      R"({"thinking":{"type":"disabled"},"messages":[{"role":"user","content":"a"},
          {"role":"system","content":"late"}]})",
      chat::Format::kV4_1);
  EXPECT_EQ(PromptOf(request, chat::Format::kV4_1),
            "<|begin_of_sentence|><|User|>a<|System|>late<|Assistant|></think>");
}

TEST(ChatRequest, WithoutAUserAnEmptyTurnIsAnswered) {
  const GenerateRequest request =
      Chat(R"({"thinking":{"type":"disabled"},"messages":[{"role":"system","content":"S"}]})");
  EXPECT_EQ(PromptOf(request), "<|begin_of_sentence|>S<|User|><|Assistant|></think>");
}

constexpr std::string_view kCalls =
    R"({"role":"user","content":"u"},{"role":"assistant","content":null,"tool_calls":[
       {"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},
       {"id":"b","function":{"name":"f","arguments":{"y":"z"}}}]})";

std::string Conversation(std::string_view rest) {
  return StrCat(R"({"messages":[)", kCalls, rest, "]}");
}

TEST(ChatRequest, ToolResultsFollowInTheOrderOfTheirCalls) {
  const GenerateRequest request = Chat(Conversation(
      R"(,{"role":"tool","tool_call_id":"b","content":"B"},
          {"role":"tool","tool_call_id":"a","content":[{"type":"text","text":"A"}]})"));
  EXPECT_NE(PromptOf(request).find("<tool_result>A</tool_result>\n\n<tool_result>B</tool_result>"),
            std::string::npos);
  EXPECT_EQ(request.conversation.messages[1].tool_calls[1].arguments, R"({"y": "z"})");
}

TEST(ChatRequest, CallsAndResultsMustPair) {
  constexpr std::string_view kFew = "(insufficient tool messages following tool_calls message)";
  const std::string a = R"(,{"role":"tool","tool_call_id":"a","content":"A"})";
  const std::string b = R"(,{"role":"tool","tool_call_id":"b","content":"B"})";
  const std::string user = R"(,{"role":"user","content":"x"})";
  EXPECT_TRUE(RefusedChat(Conversation("")).ends_with(kFew));
  EXPECT_TRUE(RefusedChat(Conversation(a)).ends_with(kFew));
  EXPECT_TRUE(RefusedChat(Conversation(a + user + b)).ends_with(kFew));
  EXPECT_EQ(RefusedChat(Conversation(a + a)),
            "messages[3] | Duplicate value for 'tool_call_id' of a in messages[3]");
  EXPECT_EQ(RefusedChat(Conversation(R"(,{"role":"tool","tool_call_id":"q","content":""})")),
            "messages[2] | Unexpected tool_call_id: q in messages[2]");
  EXPECT_EQ(RefusedChat(R"({"messages":[{"role":"tool","tool_call_id":"q","content":""}]})"),
            "messages[0] | Messages with role 'tool' must be a response to a preceding message "
            "with 'tool_calls'");
}

TEST(ChatRequest, PrefixesAreContinued) {
  const std::string head = R"({"thinking":{"type":"disabled"},"messages":[
      {"role":"user","content":"u"},{"role":"assistant","content":"so")";
  for (const std::string_view tail :
       {R"(,"prefix":true}]})", R"(}],"continue_final_message":true})",
        R"(}],"continue_final_message":true,"add_generation_prompt":false})"}) {
    const GenerateRequest request = Chat(head + std::string(tail));
    EXPECT_TRUE(request.continue_last);
    EXPECT_EQ(PromptOf(request), "<|begin_of_sentence|><|User|>u<|Assistant|></think>so");
  }
  EXPECT_TRUE(RefusedChat(head + "}]}").starts_with("messages | messages: the last message is"));
  EXPECT_TRUE(RefusedChat(With(R"("continue_final_message":true)"))
                  .starts_with("continue_final_message |"));
  EXPECT_EQ(RefusedChat(R"({"messages":[{"role":"assistant","content":"a","prefix":true},
                           {"role":"user","content":"u"}]})"),
            "messages[0].prefix | messages[0].prefix: only the last message can be a prefix");
}

TEST(ChatRequest, JsonOutputInAllItsShapes) {
  const GenerateRequest object = Chat(With(R"("response_format":{"type":"json_object"})"));
  EXPECT_EQ(object.output, OutputFormat::kJsonObject);
  EXPECT_NE(PromptOf(object).find("to reply:\n{\"type\": \"json_object\"}"), std::string::npos);
  for (const std::string_view fields :
       {R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"a":1}}})",
        R"("response_format":{"type":"json_object","schema":{"a":1}})", R"("json_schema":{"a":1})",
        R"("guided_json":{"a":1})", R"("structured_outputs":{"json":{"a":1}})"}) {
    const GenerateRequest request = Chat(With(fields));
    EXPECT_EQ(request.output, OutputFormat::kJsonSchema) << fields;
    EXPECT_EQ(request.schema, "{\"a\": 1}") << fields;
    EXPECT_NE(PromptOf(request).find("to reply:\n{\"a\": 1}"), std::string::npos) << fields;
  }
}

TEST(ChatRequest, JsonObjectNeedsTheWordInThePrompt) {
  EXPECT_EQ(RefusedChat(R"({"messages":[{"role":"user","content":"hi"}],
                           "response_format":{"type":"json_object"}})"),
            "response_format | Prompt must contain the word 'json' in some form to use "
            "'response_format' of type 'json_object'.");
  Chat(R"({"messages":[{"role":"system","content":"a JSoN!"}],
           "response_format":{"type":"json_object"}})");
}

struct Rule {
  std::string_view fields;
  std::string_view error;
};

TEST(ChatRequest, EveryRuleNamesItsField) {
  const Rule rules[] = {
      {R"("temperature":2.1)",
       "temperature | Invalid temperature value, the valid range of temperature is [0, 2]"},
      {R"("temperature":1e999)", "temperature | temperature: is too large a number"},
      {R"("top_p":0)", "top_p | Invalid top_p value, the valid range of top_p is (0, 1]"},
      {R"("presence_penalty":3)", "presence_penalty | presence_penalty must be in [-2, 2]"},
      {R"("frequency_penalty":-3)", "frequency_penalty | frequency_penalty must be in [-2, 2]"},
      {R"("n":9)", "n | Invalid n value (currently n = 1 to 8 is supported)"},
      {R"("n":0)", "n | Invalid n value (currently n = 1 to 8 is supported)"},
      {R"("seed":-1)", "seed | seed: is -1, expected an integer from 0 to 9223372036854775807"},
      {R"("max_tokens":0)", "max_tokens | max_tokens: is 0, expected an integer from 1 to 393216"},
      {R"("max_tokens":1.5)",
       "max_tokens | max_tokens: is 1.5, expected an integer from 1 to 393216"},
      {R"("stream_options":{"include_usage":true})",
       "stream_options | stream_options should be set along with stream = true"},
      {R"("top_logprobs":3)", "top_logprobs | top_logprobs: needs logprobs = true"},
      {R"("logprobs":true,"top_logprobs":21)",
       "top_logprobs | top_logprobs: is 21, expected an integer from 0 to 20"},
      {R"("user_id":"a b")", "user_id | user_id: is 'a b', expected letters, digits, '-' and '_'"},
      {R"("thinking":{"type":"maybe"})",
       "thinking.type | thinking.type: is 'maybe', expected one of enabled, disabled"},
      {R"("stop":["1","2","3","4","5","6","7","8","9","0","1","2","3","4","5","6","7"])",
       "stop | ChatCompletionStopSequences string array too long: 17 (stop, at most 16)"},
      {R"("logit_bias":{"x":1})",
       "logit_bias | logit_bias: 'x' is no token id, expected an integer"},
      {R"("logit_bias":{"1":101})",
       "logit_bias | logit_bias: a bias must be a number in [-100, 100] or false"},
      {R"("guided_choice":[])", "guided_choice | guided_choice: is an empty list"},
      {R"("structured_outputs":{"lark":"x"})",
       "structured_outputs | structured_outputs: expected one of json, regex, choice, grammar"},
      {R"("tool_choice":"required")",
       "tool_choice | tool_choice: demands a call, but there are no tools"},
      {R"("tool_choice":{"function":{"name":"x"}})",
       "tool_choice | tool_choice: no tool named 'x' was specified"},
      {R"("tools":[{"function":{"name":"f"}},{"function":{"name":"f"}}])",
       "tools | Tool names must be unique (tools: 'f' is there twice)"},
      {R"("tools":[{"function":{"name":"a b"}}])",
       "tools[0].function.name | tools[0].function.name: is 'a b', expected at most 128 letters, "
       "digits, '-' and '_'"},
      {R"("response_format":{"type":"xml"})",
       "response_format.type | response_format.type: is 'xml', expected one of text, json_object, "
       "json_schema"},
  };
  for (const Rule& rule : rules) EXPECT_EQ(RefusedChat(With(rule.fields)), rule.error);
}

TEST(ChatRequest, EveryRuleOfMessagesNamesItsField) {
  const Rule rules[] = {
      {"", "messages | Empty input messages"},
      {R"({"role":"assistant"})",
       "messages[0].content | Invalid assistant message: content or tool_calls must be set "
       "(messages[0])"},
      {R"({"role":"assistant","content":"a","tool_calls":[]})",
       "messages[0].tool_calls | Invalid assistant message: messages[0].tool_calls is an empty "
       "list"},
      {R"({"role":"user"})",
       "messages[0].content | Failed to deserialize the JSON body into the target type: missing "
       "field `messages[0].content`"},
      {R"({"role":"chef","content":""})",
       "messages[0].role | messages[0].role: is 'chef', expected one of system, user, assistant, "
       "tool"},
      {R"({"role":"user","content":[{"type":"image_url","image_url":{}}]})",
       "messages[0].content[0] | messages[0].content[0]: a part of type 'image_url' is not "
       "supported, expected text"},
  };
  for (const Rule& rule : rules) {
    EXPECT_EQ(RefusedChat(StrCat(R"({"messages":[)", rule.fields, "]}")), rule.error);
  }
  EXPECT_EQ(RefusedChat("{}"),
            "messages | Failed to deserialize the JSON body into the target type: missing field "
            "`messages`");
}

TEST(ChatRequest, TooManyToolsAreRefused) {
  std::string tools;
  for (int i = 0; i < 129; ++i) {
    tools += StrCat(i > 0 ? "," : "", R"({"function":{"name":"f)", i, "\"}}");
  }
  EXPECT_EQ(RefusedChat(With(StrCat("\"tools\":[", tools, "]"))),
            "tools | tools: has 129 functions, expected at most 128");
}

TEST(AnyRequest, BytesThatAreNoObjectAreRefused) {
  const std::string deep = std::string(300, '[') + std::string(300, ']');
  for (const Surface surface : kSurfaces) {
    for (const std::string& body : {std::string(), std::string("{"), std::string("[]"),
                                    std::string("\xff\xfe"), std::string("{\"a\":\"\xff\"}"),
                                    StrCat("{\"messages\":", deep, "}"), std::string(1, '\0')}) {
      EXPECT_NE(Refused(surface, body), "accepted") << body;
    }
  }
}

}  // namespace
}  // namespace cachalot::api
