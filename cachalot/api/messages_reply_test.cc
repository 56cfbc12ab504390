// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/test_support.h"

namespace cachalot::api {
namespace {

GenerateRequest Request(bool stream) {
  GenerateRequest request;
  request.surface = Surface::kMessages;
  request.stream = stream;
  return request;
}

const std::vector<Delta> kDeltas = {Reasoning("hm"), Content("Hi"),          CallStart("f"),
                                    Arguments("{"),  Arguments("\"a\": 1}"), CallEnd()};

TEST(MessagesReply, WholeMessage) {
  EXPECT_EQ(Reply(Request(false), kDeltas),
            R"({"id":"msg_abc","type":"message","role":"assistant","model":"deepseek-v4-flash",)"
            R"("content":[{"type":"thinking","thinking":"hm","signature":"abc"},)"
            R"({"type":"text","text":"Hi"},{"type":"tool_use","id":"toolu_00_abc","name":"f",)"
            R"("input":{"a": 1}}],"stop_reason":"tool_use","stop_sequence":null,"usage":)"
            R"({"input_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,)"
            R"("output_tokens":7}})");
}

TEST(MessagesReply, EventsInOrder) {
  EXPECT_EQ(
      Reply(Request(true), kDeltas),
      "event: message_start\n"
      R"(data: {"type":"message_start","message":{"id":"msg_abc","type":"message",)"
      R"("role":"assistant","model":"deepseek-v4-flash","content":[],"stop_reason":null,)"
      R"("stop_sequence":null,"usage":{"input_tokens":6,"cache_creation_input_tokens":0,)"
      R"("cache_read_input_tokens":4,"output_tokens":1}}})"
      "\n\nevent: content_block_start\n"
      R"(data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking",)"
      R"("thinking":"","signature":""}})"
      "\n\nevent: ping\n"
      R"(data: {"type":"ping"})"
      "\n\nevent: content_block_delta\n"
      R"(data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta",)"
      R"("thinking":"hm"}})"
      "\n\nevent: content_block_delta\n"
      R"(data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta",)"
      R"("signature":"abc"}})"
      "\n\nevent: content_block_stop\n"
      R"(data: {"type":"content_block_stop","index":0})"
      "\n\nevent: content_block_start\n"
      R"(data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}})"
      "\n\nevent: content_block_delta\n"
      R"(data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hi"}})"
      "\n\nevent: content_block_stop\n"
      R"(data: {"type":"content_block_stop","index":1})"
      "\n\nevent: content_block_start\n"
      R"(data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use",)"
      R"("id":"toolu_00_abc","name":"f","input":{}}})"
      "\n\nevent: content_block_delta\n"
      R"(data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta",)"
      R"("partial_json":"{"}})"
      "\n\nevent: content_block_delta\n"
      R"(data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta",)"
      R"("partial_json":"\"a\": 1}"}})"
      "\n\nevent: content_block_stop\n"
      R"(data: {"type":"content_block_stop","index":2})"
      "\n\nevent: message_delta\n"
      R"(data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},)"
      R"("usage":{"input_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,)"
      R"("output_tokens":7}})"
      "\n\nevent: message_stop\n"
      R"(data: {"type":"message_stop"})"
      "\n\n");
}

TEST(MessagesReply, StopReasons) {
  const auto has = [](const Ending& ending, std::string_view text) {
    return Reply(Request(false), {Content("x")}, ending).find(text) != std::string::npos;
  };
  EXPECT_TRUE(has({}, R"("stop_reason":"end_turn","stop_sequence":null)"));
  EXPECT_TRUE(has({.finish = Finish::kLength}, R"("stop_reason":"max_tokens")"));
  EXPECT_TRUE(has({.finish = Finish::kStopString, .stop_string = "S"},
                  R"("stop_reason":"stop_sequence","stop_sequence":"S")"));
}

TEST(MessagesReply, ThinkingAloneIsFollowedByAnEmptyText) {
  EXPECT_NE(Reply(Request(false), {Reasoning("r")}).find(R"({"type":"text","text":""})"),
            std::string::npos);
  EXPECT_NE(
      Reply(Request(true), {Reasoning("r")}).find(R"("index":1,"content_block":{"type":"text")"),
      std::string::npos);
}

TEST(MessagesReply, InputOfACutCallIsEmpty) {
  const Ending cut{.finish = Finish::kLength};
  const std::string body = Reply(Request(false), {CallStart("f"), Arguments("{\"a\": ")}, cut);
  EXPECT_NE(body.find(R"("input":{}}],"stop_reason":"max_tokens")"), std::string::npos) << body;
}

TEST(MessagesReply, AbortAndFailureAreErrors) {
  const Ending aborted{.finish = Finish::kAborted};
  const std::string error = R"({"type":"error","error":{"type":"overloaded_error")";
  const std::string stream = Reply(Request(true), {Content("x")}, aborted);
  EXPECT_NE(stream.find("event: error\ndata: " + error), std::string::npos);
  EXPECT_EQ(stream.find("message_stop"), std::string::npos);
  EXPECT_TRUE(Reply(Request(false), {Content("x")}, aborted).starts_with(error));
}

}  // namespace
}  // namespace cachalot::api
