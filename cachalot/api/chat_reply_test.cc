// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "cachalot/api/test_support.h"

namespace cachalot::api {
namespace {

GenerateRequest Request(bool stream, bool thinking = true) {
  GenerateRequest request;
  request.surface = Surface::kChat;
  request.stream = stream;
  request.thinking = thinking;
  return request;
}

const std::vector<Delta> kDeltas = {Reasoning("hm"),   Content("Hi"),          CallStart("f"),
                                    Arguments("{"),    Arguments("\"a\": 1}"), CallEnd(),
                                    CallStart("n::g"), Arguments("{}"),        CallEnd()};

constexpr std::string_view kUsage =
    R"("usage":{"prompt_tokens":10,"completion_tokens":7,"total_tokens":17,)"
    R"("prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":)"
    R"({"reasoning_tokens":3},"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":6})";
constexpr std::string_view kHead =
    R"({"id":"chatcmpl-abc","object":"chat.completion.chunk","created":1700000000,)"
    R"("model":"deepseek-v4-flash","system_fingerprint":"fp_1","choices":)";

std::string Stream(const GenerateRequest& request, const std::vector<Delta>& deltas,
                   const Ending& ending = {}) {
  return Brief(Brief(Reply(request, deltas, ending), kHead), kUsage);
}

TEST(ChatReply, WholeMessage) {
  EXPECT_EQ(
      Brief(Reply(Request(false), kDeltas), kUsage),
      R"({"id":"chatcmpl-abc","object":"chat.completion","created":1700000000,)"
      R"("model":"deepseek-v4-flash","system_fingerprint":"fp_1","choices":[{"index":0,"message":)"
      R"({"role":"assistant","content":"Hi","reasoning_content":"hm","tool_calls":[{"index":0,)"
      R"("id":"call_00_abc","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}},)"
      R"({"index":1,"id":"call_01_abc","type":"function","function":{"namespace":"n","name":"g",)"
      R"("arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],..})");
}

TEST(ChatReply, EmptyReasoningAndCallsAreAbsent) {
  EXPECT_NE(Reply(Request(false), {Content("x")})
                .find(R"("message":{"role":"assistant","content":"x"},)"),
            std::string::npos);
}

TEST(ChatReply, StreamInOrder) {
  EXPECT_EQ(
      Stream(Request(true), kDeltas),
      R"(data: ..[{"index":0,"delta":{"role":"assistant","content":null,"reasoning_content":""},)"
      R"("logprobs":null,"finish_reason":null}]})"
      "\n\n"
      R"(data: ..[{"index":0,"delta":{"content":null,"reasoning_content":"hm"},"logprobs":null,)"
      R"("finish_reason":null}]})"
      "\n\n"
      R"(data: ..[{"index":0,"delta":{"content":"Hi","reasoning_content":null},"logprobs":null,)"
      R"("finish_reason":null}]})"
      "\n\n"
      R"(data: ..[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_00_abc",)"
      R"("type":"function","function":{"name":"f","arguments":""}}]},"logprobs":null,)"
      R"("finish_reason":null}]})"
      "\n\n"
      R"(data: ..[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]},)"
      R"("logprobs":null,"finish_reason":null}]})"
      "\n\n"
      R"(data: ..[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":)"
      R"("\"a\": 1}"}}]},"logprobs":null,"finish_reason":null}]})"
      "\n\n"
      R"(data: ..[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_01_abc",)"
      R"("type":"function","function":{"namespace":"n","name":"g","arguments":""}}]},)"
      R"("logprobs":null,"finish_reason":null}]})"
      "\n\n"
      R"(data: ..[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]},)"
      R"("logprobs":null,"finish_reason":null}]})"
      "\n\n"
      R"(data: ..[{"index":0,"delta":{"content":"","reasoning_content":null},"logprobs":null,)"
      R"("finish_reason":"tool_calls"}],..})"
      "\n\ndata: [DONE]\n\n");
}

TEST(ChatReply, UsageComesOnce) {
  GenerateRequest request = Request(true, /*thinking=*/false);
  request.include_usage = true;
  EXPECT_EQ(Stream(request, {Content("Hi")}, {.finish = Finish::kLength}),
            R"(data: ..[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,)"
            R"("finish_reason":null}],"usage":null})"
            "\n\n"
            R"(data: ..[{"index":0,"delta":{"content":"Hi"},"logprobs":null,)"
            R"("finish_reason":null}],"usage":null})"
            "\n\n"
            R"(data: ..[{"index":0,"delta":{"content":""},"logprobs":null,)"
            R"("finish_reason":"length"}],"usage":null})"
            "\n\n"
            R"(data: ..[],..})"
            "\n\ndata: [DONE]\n\n");
}

TEST(ChatReply, ChoicesInterleave) {
  GenerateRequest request = Request(true, false);
  request.n = 2;
  const auto writer = MakeReplyWriter(request, Info());
  std::string out = writer->Begin({});
  Delta second = CallStart("f");
  second.choice = 1;
  out += writer->Add(second);
  out += writer->End(1, Finish::kStop, "");
  out += writer->Add(Content("x"));
  out += writer->End(0, Finish::kStopString, "s");
  out += writer->Done({});
  EXPECT_NE(out.find("\"id\":\"call_00_abc_1\""), std::string::npos);
  const size_t first_end = out.find("\"finish_reason\":\"tool_calls\"");
  const size_t second_end = out.find("\"finish_reason\":\"stop\"");
  ASSERT_NE(first_end, std::string::npos);
  ASSERT_NE(second_end, std::string::npos);
  EXPECT_LT(first_end, second_end);
  EXPECT_GT(out.find("\"usage\""), second_end);
}

TEST(ChatReply, LogprobsGoWithTheirText) {
  Delta delta = Content("\xc3\xa9");
  delta.logprobs = {{.token_bytes = "\xc3", .logprob = -0.5F, .top = {{"a", -INFINITY}}},
                    {.token_bytes = "\xa9", .logprob = 0}};
  constexpr std::string_view kList =
      "[{\"token\":\"\uFFFD\",\"logprob\":-0.5,\"bytes\":[195],\"top_logprobs\":[{\"token\":\"a\","
      "\"logprob\":-9999.0,\"bytes\":[97]}]},{\"token\":\"\uFFFD\",\"logprob\":0,\"bytes\":[169],"
      "\"top_logprobs\":[]}]";
  for (const bool stream : {false, true}) {
    GenerateRequest request = Request(stream, false);
    request.logprobs = true;
    EXPECT_NE(Reply(request, {delta}).find("\"logprobs\":{\"content\":" + std::string(kList) + "}"),
              std::string::npos);
    EXPECT_EQ(Reply(Request(stream, false), {delta}).find("\"bytes\""), std::string::npos);
  }
}

TEST(ChatReply, FailureEndsEither) {
  const ApiError error = ErrorOfStatus(503, "full");
  const std::string body =
      R"({"error":{"message":"full","type":"unavailable_error","param":null,"code":"unavailable"}})";
  const auto stream = MakeReplyWriter(Request(true), Info());
  EXPECT_EQ(stream->Fail(error), "data: " + body + "\n\n");
  const auto whole = MakeReplyWriter(Request(false), Info());
  EXPECT_EQ(whole->Fail(error), "");
  EXPECT_EQ(whole->Body(), body);
}

TEST(ChatReply, AbortIsAFinishReason) {
  EXPECT_NE(Reply(Request(false), {Content("x")}, {.finish = Finish::kAborted})
                .find("\"finish_reason\":\"insufficient_system_resource\""),
            std::string::npos);
}

TEST(CompletionsReply, WholeAndStreamed) {
  GenerateRequest request;
  request.surface = Surface::kCompletions;
  request.thinking = false;
  request.prompts = {{.text = "P"}, {.text = "Q"}};
  request.echo = true;
  EXPECT_EQ(Brief(Reply(request, {Content("x")}), kUsage),
            R"({"id":"cmpl-abc","object":"text_completion","created":1700000000,)"
            R"("model":"deepseek-v4-flash","system_fingerprint":"fp_1","choices":[{"index":0,)"
            R"("text":"Px","logprobs":null,"finish_reason":"stop"},{"index":1,"text":"Q",)"
            R"("logprobs":null,"finish_reason":"stop"}],..})");
  request.prompts.pop_back();
  request.stream = true;
  constexpr std::string_view kTextHead =
      R"({"id":"cmpl-abc","object":"text_completion","created":1700000000,)"
      R"("model":"deepseek-v4-flash","system_fingerprint":"fp_1","choices":)";
  EXPECT_EQ(Brief(Brief(Reply(request, {Content("x")}), kTextHead), kUsage),
            R"(data: ..[{"index":0,"text":"P","logprobs":null,"finish_reason":null}]})"
            "\n\n"
            R"(data: ..[{"index":0,"text":"x","logprobs":null,"finish_reason":null}]})"
            "\n\n"
            R"(data: ..[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}],..})"
            "\n\ndata: [DONE]\n\n");
}

TEST(CompletionsReply, LogprobOffsetsRunOn) {
  GenerateRequest request;
  request.surface = Surface::kCompletions;
  request.prompts = {{.text = "P"}};
  request.logprobs = true;
  Delta a = Content("\xc3\xa9");
  a.logprobs = {{.token_bytes = "\xc3\xa9", .logprob = -1, .top = {{"b", -1.5F}, {"b", -2}}}};
  Delta b = Content("c");
  b.logprobs = {{.token_bytes = "c", .logprob = -2}};
  EXPECT_NE(Reply(request, {a, b})
                .find("\"logprobs\":{\"text_offset\":[0,1],\"token_logprobs\":[-1,-2],\"tokens\":["
                      "\"\u00e9\",\"c\"],\"top_logprobs\":[{\"b\":-1.5},{}]}"),
            std::string::npos);
  request.stream = true;
  EXPECT_NE(Reply(request, {a, b}).find("\"text_offset\":[1]"), std::string::npos);
}

TEST(Errors, HaveTheShapeOfTheirApi) {
  const ApiError error = InvalidRequest("n", "bad");
  for (const Surface surface : {Surface::kChat, Surface::kCompletions, Surface::kResponses}) {
    EXPECT_EQ(ErrorBody(surface, error),
              R"({"error":{"message":"bad","type":"invalid_request_error","param":"n",)"
              R"("code":"invalid_request_error"}})");
  }
  EXPECT_EQ(ErrorBody(Surface::kMessages, error),
            R"({"type":"error","error":{"type":"invalid_request_error","message":"bad"}})");
  const std::pair<int, std::string_view> types[] = {
      {401, "authentication_error"}, {404, "not_found_error"}, {413, "request_too_large"},
      {429, "rate_limit_error"},     {500, "api_error"},       {503, "overloaded_error"}};
  for (const auto& [status, type] : types) {
    EXPECT_NE(ErrorBody(Surface::kMessages, ErrorOfStatus(status, "m")).find(type),
              std::string::npos);
  }
  EXPECT_EQ(ApiError::From({ErrorCode::kResourceExhausted, "no memory"}).status, 503);
  EXPECT_EQ(ContextLengthExceeded(9, 8).code, "context_length_exceeded");
}

}  // namespace
}  // namespace cachalot::api
