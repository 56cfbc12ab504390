// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/test_support.h"
#include "cachalot/base/strings.h"

namespace cachalot::api {
namespace {

GenerateRequest Request(bool stream) {
  GenerateRequest request;
  request.surface = Surface::kResponses;
  request.stream = stream;
  request.custom_tools = {"p"};
  return request;
}

const std::vector<Delta> kDeltas = {
    Reasoning("hm"),     Content("Hi"), Content("!"),   CallStart("n::f"),
    Arguments("{}"),     CallEnd(),     CallStart("p"), Arguments("{\"input\": \"a"),
    Arguments("\\n\"}"), CallEnd()};

constexpr std::string_view kOutput[] = {
    R"({"type":"reasoning","id":"rs_abc_0","status":"completed","summary":[],"content":)"
    R"([{"type":"reasoning_text","text":"hm"}]})",
    R"({"type":"message","id":"msg_abc_1","status":"completed","role":"assistant","content":)"
    R"([{"type":"output_text","text":"Hi!","annotations":[]}]})",
    R"({"type":"function_call","id":"fc_abc_2","status":"completed","call_id":"call_00_abc",)"
    R"("namespace":"n","name":"f","arguments":"{}"})",
    R"({"type":"custom_tool_call","id":"ctc_abc_3","status":"completed","call_id":"call_01_abc",)"
    R"("name":"p","input":"a\n"})"};

std::string Whole(std::string_view status, std::string_view output, std::string_view details) {
  return StrCat(
      R"({"id":"resp_abc","object":"response","created_at":1700000000,"status":")", status,
      R"(","model":"deepseek-v4-flash","output":[)", output,
      R"(],"usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":4},)"
      R"("output_tokens":7,"output_tokens_details":{"reasoning_tokens":3},"total_tokens":17},)"
      R"("store":false,"parallel_tool_calls":true,"previous_response_id":null,"error":null,)"
      R"("incomplete_details":)",
      details, "}");
}

std::string AllOutput() {
  return StrCat(kOutput[0], ",", kOutput[1], ",", kOutput[2], ",", kOutput[3]);
}

TEST(ResponsesReply, WholeResponse) {
  EXPECT_EQ(Reply(Request(false), kDeltas), Whole("completed", AllOutput(), "null"));
}

TEST(ResponsesReply, EventsInOrder) {
  const std::string started =
      R"({"id":"resp_abc","object":"response","created_at":1700000000,"status":"in_progress",)"
      R"("model":"deepseek-v4-flash","output":[],"usage":null,"store":false,)"
      R"("parallel_tool_calls":true,"previous_response_id":null,"error":null,)"
      R"("incomplete_details":null})";
  const std::pair<std::string, std::string> events[] = {
      {"created", R"("response":)" + started},
      {"in_progress", R"("response":)" + started},
      {"output_item.added",
       R"("output_index":0,"item":{"type":"reasoning","id":"rs_abc_0","status":"in_progress",)"
       R"("summary":[],"content":[]})"},
      {"content_part.added", R"("item_id":"rs_abc_0","output_index":0,"content_index":0,)"
                             R"("part":{"type":"reasoning_text","text":""})"},
      {"reasoning_text.delta",
       R"("item_id":"rs_abc_0","output_index":0,"content_index":0,"delta":"hm")"},
      {"reasoning_text.done",
       R"("item_id":"rs_abc_0","output_index":0,"content_index":0,"text":"hm")"},
      {"content_part.done", R"("item_id":"rs_abc_0","output_index":0,"content_index":0,)"
                            R"("part":{"type":"reasoning_text","text":"hm"})"},
      {"output_item.done", StrCat(R"("output_index":0,"item":)", kOutput[0])},
      {"output_item.added",
       R"("output_index":1,"item":{"type":"message","id":"msg_abc_1","status":"in_progress",)"
       R"("role":"assistant","content":[]})"},
      {"content_part.added", R"("item_id":"msg_abc_1","output_index":1,"content_index":0,)"
                             R"("part":{"type":"output_text","text":"","annotations":[]})"},
      {"output_text.delta",
       R"("item_id":"msg_abc_1","output_index":1,"content_index":0,"delta":"Hi")"},
      {"output_text.delta",
       R"("item_id":"msg_abc_1","output_index":1,"content_index":0,"delta":"!")"},
      {"output_text.done",
       R"("item_id":"msg_abc_1","output_index":1,"content_index":0,"text":"Hi!")"},
      {"content_part.done", R"("item_id":"msg_abc_1","output_index":1,"content_index":0,)"
                            R"("part":{"type":"output_text","text":"Hi!","annotations":[]})"},
      {"output_item.done", StrCat(R"("output_index":1,"item":)", kOutput[1])},
      {"output_item.added",
       R"("output_index":2,"item":{"type":"function_call","id":"fc_abc_2","status":"in_progress",)"
       R"("call_id":"call_00_abc","namespace":"n","name":"f","arguments":""})"},
      {"function_call_arguments.delta", R"("item_id":"fc_abc_2","output_index":2,"delta":"{}")"},
      {"function_call_arguments.done", R"("item_id":"fc_abc_2","output_index":2,"arguments":"{}")"},
      {"output_item.done", StrCat(R"("output_index":2,"item":)", kOutput[2])},
      {"output_item.added",
       R"("output_index":3,"item":{"type":"custom_tool_call","id":"ctc_abc_3",)"
       R"("status":"in_progress","call_id":"call_01_abc","name":"p","input":""})"},
      {"custom_tool_call_input.delta", R"("item_id":"ctc_abc_3","output_index":3,"delta":"a\n")"},
      {"custom_tool_call_input.done", R"("item_id":"ctc_abc_3","output_index":3,"input":"a\n")"},
      {"output_item.done", StrCat(R"("output_index":3,"item":)", kOutput[3])},
      {"completed", R"("response":)" + Whole("completed", AllOutput(), "null")},
  };
  std::string expected;
  int number = 0;
  for (const auto& [name, members] : events) {
    expected += StrCat("event: response.", name, "\ndata: {\"type\":\"response.", name,
                       "\",\"sequence_number\":", number++, ",", members, "}\n\n");
  }
  EXPECT_EQ(Reply(Request(true), kDeltas), expected);
}

TEST(ResponsesReply, LengthIsIncomplete) {
  const Ending cut{.finish = Finish::kLength};
  const std::string item = R"({"type":"custom_tool_call","id":"ctc_abc_0","status":"incomplete",)"
                           R"("call_id":"call_00_abc","name":"p","input":"a"})";
  const std::vector<Delta> deltas = {CallStart("p"), Arguments("{\"input\": \"a")};
  const std::string whole = Whole("incomplete", item, R"({"reason":"max_output_tokens"})");
  EXPECT_EQ(Reply(Request(false), deltas, cut), whole);
  const std::string stream = Reply(Request(true), deltas, cut);
  EXPECT_NE(stream.find("event: response.incomplete\n"), std::string::npos);
  EXPECT_NE(stream.find(whole), std::string::npos);
}

TEST(ResponsesReply, AbortAndFailureAreFailed) {
  const std::string aborted = Reply(Request(true), {Content("x")}, {.finish = Finish::kAborted});
  EXPECT_NE(aborted.find("event: response.failed\n"), std::string::npos);
  EXPECT_NE(aborted.find(R"("error":{"code":"server_error")"), std::string::npos);
  const auto writer = MakeReplyWriter(Request(true), Info());
  EXPECT_NE(writer->Fail(ContextLengthExceeded(9, 8)).find(R"("code":"context_length_exceeded")"),
            std::string::npos);
  EXPECT_EQ(TokenCountBody(Surface::kResponses, 3),
            R"({"object":"response.input_tokens","input_tokens":3})");
}

}  // namespace
}  // namespace cachalot::api
