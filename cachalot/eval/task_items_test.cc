// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/task_items.h"

#include <gtest/gtest.h>

#include "cachalot/tokenizer/v4_format.h"

namespace cachalot::eval {
namespace {

// Every byte a token, markers after them.
class TaskItemsTest : public testing::Test {
 protected:
  Result<std::vector<TaskItem>> Parse(std::string_view text, uint32_t vocab_size = 400) const {
    return ParseTaskItems(text, "x.jsonl", *tokenizer_, vocab_size);
  }
  std::string Refusal(std::string_view text, uint32_t vocab_size = 400) const {
    const auto items = Parse(text, vocab_size);
    return items.ok() ? "" : items.error().message;
  }

  std::shared_ptr<const tokenizer::Tokenizer> tokenizer_ =
      tokenizer::Tokenizer::FromJson(tokenizer::V4TokenizerJson({}), "bytes").value();
};

constexpr std::string_view kCopy =
    R"({"skill":"copying","thinking_mode":"chat","messages":[{"role":"user","content":"Say: abc"},)"
    R"({"role":"assistant","content":"abc"}]})";

TEST_F(TaskItemsTest, TheAnswerIsWhatTheAssistantSaysLast) {
  const auto items = Parse(std::string("\n") + std::string(kCopy) + "\n");
  ASSERT_TRUE(items.ok()) << items.error().message;
  ASSERT_EQ(items->size(), 1u);
  const TaskItem& item = items->front();
  EXPECT_EQ(item.skill, "copying");
  // BOS, user, 8 bytes, assistant, </think>; then 3 bytes and EOS.
  EXPECT_EQ(item.answer_begin, 12u);
  EXPECT_EQ(item.ids.size(), 16u);
  // "abc", assistant, </think>.
  EXPECT_EQ(item.tokens_back, 5u);
}

TEST_F(TaskItemsTest, ToolCallsAreAnswersThatThePromptDoesNotSay) {
  const auto items = Parse(
      R"({"skill":"call","thinking_mode":"chat","tools":[{"type":"function","function":{"name":"f",)"
      R"("parameters":{}}}],"messages":[{"role":"user","content":"1 + 1"},{"role":"assistant",)"
      R"("content":"","tool_calls":[{"id":"a","type":"function","function":{"name":"f",)"
      R"("arguments":"{\"x\": \"1 + 1\"}"}}]}]})");
  ASSERT_TRUE(items.ok()) << items.error().message;
  EXPECT_EQ(items->front().tokens_back, 0u);
  EXPECT_LT(items->front().answer_begin, items->front().ids.size());
}

TEST_F(TaskItemsTest, BadLinesAreNamed) {
  EXPECT_NE(Refusal("{}\n").find("x.jsonl:1"), std::string::npos);
  EXPECT_NE(Refusal(std::string(kCopy) + "\n[1]\n").find("x.jsonl:2"), std::string::npos);
  EXPECT_NE(
      Refusal(R"({"skill":"s","messages":[{"role":"user","content":"a"}]})").find("assistant"),
      std::string::npos);
  EXPECT_NE(Refusal(kCopy, 200).find("vocabulary of 200"), std::string::npos);
  EXPECT_TRUE(Parse("")->empty());
}

TEST(AddToScores, KeepsTheOrderOfSkillsAndTheRangeOfDistances) {
  std::vector<SkillScore> scores;
  AddToScores({.skill = "b", .ids = {}, .tokens_back = 7}, true, scores);
  AddToScores({.skill = "a", .ids = {}, .tokens_back = 0}, false, scores);
  AddToScores({.skill = "b", .ids = {}, .tokens_back = 3}, false, scores);
  ASSERT_EQ(scores.size(), 2u);
  EXPECT_EQ(scores[0].skill, "b");
  EXPECT_EQ(scores[0].share(), 0.5);
  EXPECT_EQ(scores[0].min_back, 3u);
  EXPECT_EQ(scores[0].max_back, 7u);
  EXPECT_EQ(scores[1].right, 0u);
}

}  // namespace
}  // namespace cachalot::eval
