// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/token_filter.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "cachalot/base/strings.h"
#include "cachalot/chat/golden_cases.h"
#include "cachalot/chat/markers.h"

namespace cachalot::chat {
namespace {

std::string Filter(const std::string& text, size_t piece) {
  TokenFilter filter;
  std::string out;
  for (size_t i = 0; i < text.size(); i += piece) out += filter.Push(text.substr(i, piece));
  return out + filter.Finish();
}

TEST(TokenFilter, RemovesTheTokenAndNothingElse) {
  for (size_t piece = 1; piece < 30; ++piece) {
    EXPECT_EQ(Filter(StrCat("a", kDsml, "b", kDsml, kDsml, "c"), piece), "abc");
    EXPECT_EQ(Filter("\uFF5CDSML|\uFF5C\uFF5CDSM", piece), "\uFF5CDSML|\uFF5C\uFF5CDSM");
    EXPECT_EQ(Filter("\uFF5CDSM\uFF5CDSML\uFF5C", piece), "\uFF5CDSM");
  }
}

TEST(TokenFilter, HalvesJoinedByARemovalDoNotMakeAToken) {
  EXPECT_EQ(Filter(StrCat("\uFF5CDS", kDsml, "ML\uFF5C."), 1), "\uFF5CDS.");
}

RC_GTEST_PROP(TokenFilter, OutputNeverHasTheTokenAndIgnoresTheCuts, ()) {
  const auto parts = *rc::gen::container<std::vector<std::string>>(rc::gen::element<std::string>(
      "\uFF5C", "DSML", "DS", "ML", "\xEF", "\xBD\x9C", "\uFF5CDSML\uFF5C", "D", "x", "<"));
  std::string text;
  for (const std::string& part : parts) text += part;
  const std::string whole = Filter(text, text.size() + 1);
  RC_ASSERT(whole.find(kDsml) == std::string::npos);
  RC_ASSERT(Filter(text, *rc::gen::inRange<size_t>(1, 7)) == whole);
}

}  // namespace
}  // namespace cachalot::chat
