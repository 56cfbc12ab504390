// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/call_texts.h"

#include <gtest/gtest.h>

namespace cachalot::serve {
namespace {

constexpr kvcache::CacheScope kScope{1};
constexpr kvcache::CacheScope kOther{2};
const std::vector<chat::ToolCall> kCalls = {
    {.id = "call_a", .name = "weather", .arguments = R"({"city":"Bath","days":2})"},
    {.id = "call_b", .name = "time", .arguments = "{}"}};

std::string Replayed(CallTexts& texts, std::vector<chat::ToolCall> calls,
                     kvcache::CacheScope scope = kScope) {
  std::vector<chat::Message> messages = {chat::UserMessage("?"), chat::AssistantMessage("")};
  messages[1].tool_calls = std::move(calls);
  texts.Replay(scope, messages);
  EXPECT_EQ(messages[0].calls_text, "");
  return messages[1].calls_text;
}

TEST(CallTexts, CallsThatComeBackAreWrittenAsTheModelWroteThem) {
  CallTexts texts(4096);
  texts.Add(kScope, kCalls, "<as written>");
  EXPECT_EQ(Replayed(texts, kCalls), "<as written>");
  auto spaced = kCalls;
  spaced[0].arguments = R"({ "city": "Bath", "days": 2 })";
  EXPECT_EQ(Replayed(texts, spaced), "<as written>");
}

TEST(CallTexts, ChangedCallsAreNot) {
  CallTexts texts(4096);
  texts.Add(kScope, kCalls, "<as written>");
  auto changed = kCalls;
  changed[0].arguments = R"({"city":"Bath","days":3})";
  EXPECT_EQ(Replayed(texts, changed), "");
  changed = kCalls;
  changed[1].name = "date";
  EXPECT_EQ(Replayed(texts, changed), "");
  changed = kCalls;
  changed.pop_back();
  EXPECT_EQ(Replayed(texts, changed), "");
  changed[0].id = "call_c";
  EXPECT_EQ(Replayed(texts, changed), "");
  EXPECT_EQ(Replayed(texts, {}), "");
}

TEST(CallTexts, ScopesAreApartAndPurgedAlone) {
  CallTexts texts(4096);
  texts.Add(kScope, kCalls, "<as written>");
  auto others = kCalls;
  others[0].id = "call_x";
  texts.Add(kOther, others, "<another's>");
  EXPECT_EQ(Replayed(texts, kCalls, kOther), "");
  texts.Purge(kScope);
  EXPECT_EQ(Replayed(texts, kCalls), "");
  EXPECT_EQ(Replayed(texts, others, kOther), "<another's>");
}

TEST(CallTexts, TheLeastRecentlyUsedGoFirst) {
  CallTexts texts(2000);
  for (const char* id : {"call_1", "call_2", "call_3"}) {
    texts.Add(kScope, {{.id = id, .name = "f", .arguments = "{}"}}, std::string(500, 'x'));
    // The first is always used again.
    EXPECT_NE(Replayed(texts, {{.id = "call_1", .name = "f", .arguments = "{}"}}), "");
  }
  EXPECT_EQ(Replayed(texts, {{.id = "call_2", .name = "f", .arguments = "{}"}}), "");
  EXPECT_NE(Replayed(texts, {{.id = "call_3", .name = "f", .arguments = "{}"}}), "");
}

TEST(CallTexts, NothingToSayIsNotKept) {
  CallTexts texts(4096);
  texts.Add(kScope, kCalls, "");
  texts.Add(kScope, {}, "text");
  EXPECT_EQ(Replayed(texts, kCalls), "");
}

}  // namespace
}  // namespace cachalot::serve
