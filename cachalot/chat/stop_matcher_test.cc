// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/stop_matcher.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "cachalot/chat/golden_cases.h"

namespace cachalot::chat {
namespace {

// The text before the first occurrence, by search in the whole text.
std::string Reference(const std::string& text, const std::vector<std::string>& stops) {
  size_t first = std::string::npos;
  for (const std::string& stop : stops) {
    if (!stop.empty()) first = std::min(first, text.find(stop));
  }
  return text.substr(0, first);
}

std::string Cut(const std::string& text, const std::vector<std::string>& stops, size_t piece) {
  StopMatcher matcher(stops);
  std::string out;
  for (size_t i = 0; i < text.size(); i += piece) out += matcher.Push(text.substr(i, piece));
  return out + matcher.Finish();
}

TEST(StopMatcher, TheOccurrenceThatBeginsFirstWins) {
  for (size_t piece = 1; piece < 12; ++piece) {
    EXPECT_EQ(Cut("say abcd and go", {"bcd and", "c", "abcdX"}, piece), "say a");
    EXPECT_EQ(Cut("aabaab!", {"aab!"}, piece), "aab");
    EXPECT_EQ(Cut("2 <", {"</s>"}, piece), "2 <");
  }
}

TEST(StopMatcher, ReportsWhatMatched) {
  StopMatcher matcher({"xx", "END"});
  EXPECT_EQ(matcher.Push("the END."), "the ");
  ASSERT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.matched(), "END");
  EXPECT_EQ(matcher.Push("more") + matcher.Finish(), "");
}

TEST(StopMatcher, EmptyStringsNeverMatch) { EXPECT_EQ(Cut("abc", {"", ""}, 1), "abc"); }

// Few letters, so that overlaps abound.
RC_GTEST_PROP(StopMatcher, EqualsSearchingTheWholeText, ()) {
  const auto letters = rc::gen::container<std::string>(rc::gen::element('a', 'b'));
  const std::string text = *letters;
  const auto stops = *rc::gen::container<std::vector<std::string>>(letters);
  const size_t piece = *rc::gen::inRange<size_t>(1, 5);
  RC_ASSERT(Cut(text, stops, piece) == Reference(text, stops));
}

}  // namespace
}  // namespace cachalot::chat
