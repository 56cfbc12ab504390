// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/stop_matcher.h"

#include <gtest/gtest.h>

namespace cachalot::cli {
namespace {

struct Outcome {
  std::string text;
  bool stopped;
  bool operator==(const Outcome&) const = default;
};

Outcome RunPieces(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  std::string out;
  for (const std::string& piece : pieces) out += matcher.Push(piece);
  out += matcher.Finish();
  return {out, matcher.stopped()};
}

TEST(StopMatcher, PassesTextWithoutStops) {
  EXPECT_EQ(RunPieces({}, {"ab", "c"}), (Outcome{"abc", false}));
  EXPECT_EQ(RunPieces({""}, {"ab", "c"}), (Outcome{"abc", false}));
}

TEST(StopMatcher, HoldsBackOnlyWhatMayStillMatch) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Push("say EN"), "say ");
  EXPECT_EQ(matcher.Push("OUGH"), "ENOUGH");
  EXPECT_EQ(matcher.Push("E"), "");
  EXPECT_EQ(matcher.Finish(), "E");
}

TEST(StopMatcher, ResultDoesNotDependOnTheCuts) {
  const std::string text = "aab aabb baba abc xabd";
  const std::vector<std::vector<std::string>> stop_sets = {
      {"abc"}, {"aabb", "ab"}, {"xabz", "b"}, {"baba", "ba"}, {"zzz"}, {"abd"}, {"aab "}};
  for (const auto& stops : stop_sets) {
    const Outcome whole = RunPieces(stops, {text});
    for (size_t i = 0; i <= text.size(); ++i) {
      for (size_t j = i; j <= text.size(); ++j) {
        const Outcome cut =
            RunPieces(stops, {text.substr(0, i), text.substr(i, j - i), text.substr(j)});
        EXPECT_EQ(cut, whole) << stops[0] << " cut at " << i << ", " << j;
      }
    }
  }
}

TEST(StopMatcher, TheMatchThatBeginsFirstWins) {
  EXPECT_EQ(RunPieces({"cd", "bcde"}, {"abcdef"}), (Outcome{"a", true}));
  EXPECT_EQ(RunPieces({"cd", "bcdx"}, {"abcdef"}), (Outcome{"ab", true}));
  EXPECT_EQ(RunPieces({"cd", "bcdx"}, {"abcd"}), (Outcome{"ab", true}));
}

}  // namespace
}  // namespace cachalot::cli
