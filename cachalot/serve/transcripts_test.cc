// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/transcripts.h"

#include <gtest/gtest.h>

#include "cachalot/chat/markers.h"

namespace cachalot::serve {
namespace {

using Ids = std::vector<uint32_t>;
constexpr kvcache::CacheScope kScope{1};

class TranscriptsTest : public ::testing::Test {
 protected:
  Ids Encode(std::string_view text) const { return tokenizer_->Encode(text, true); }
  // A text in single bytes: never what the tokenizer would say of it.
  Ids Spelled(std::string_view text) const {
    Ids ids;
    for (const char c : text) ids.push_back(Encode({&c, 1})[0]);
    return ids;
  }

  std::shared_ptr<const tokenizer::Tokenizer> tokenizer_ =
      tokenizer::Tokenizer::Load(CACHALOT_SOURCE_DIR "/models/mini").value();
  Transcripts transcripts_{tokenizer_, 4096};
  const std::string marker_{chat::kEos};
};

TEST_F(TranscriptsTest, GoesOnWithTheIdsThatWereSampled) {
  transcripts_.Add(kScope, "She was", Spelled("She was"));
  Ids want = Spelled("She was");
  const Ids rest = Encode(marker_ + "so");
  want.insert(want.end(), rest.begin(), rest.end());
  EXPECT_EQ(transcripts_.Encode(kScope, "She was" + marker_ + "so"), want);
}

TEST_F(TranscriptsTest, ACutInsideAWordIsNotUsed) {
  transcripts_.Add(kScope, "She was", Spelled("She was"));
  EXPECT_EQ(transcripts_.Encode(kScope, "She wasp"), Encode("She wasp"));
}

TEST_F(TranscriptsTest, TheLongestBeginningWinsAndScopesAreApart) {
  transcripts_.Add(kScope, "She", Spelled("She"));
  transcripts_.Add(kScope, "She" + marker_ + "was", Encode("She" + marker_ + "was"));
  const std::string text = "She" + marker_ + "was" + marker_;
  EXPECT_EQ(transcripts_.Encode(kScope, text), Encode(text));
  transcripts_.Add(kvcache::CacheScope{2}, text, Spelled("x"));
  EXPECT_EQ(transcripts_.Encode(kScope, text + marker_), Encode(text + marker_));
}

TEST_F(TranscriptsTest, PurgingForgetsOneScopeOnly) {
  constexpr kvcache::CacheScope kOther{2};
  for (const auto scope : {kScope, kOther}) transcripts_.Add(scope, "She was", Spelled("She was"));
  transcripts_.Purge(kScope);
  EXPECT_EQ(transcripts_.Encode(kScope, "She was" + marker_), Encode("She was" + marker_));
  Ids spelled = Spelled("She was");
  const Ids rest = Encode(marker_);
  spelled.insert(spelled.end(), rest.begin(), rest.end());
  EXPECT_EQ(transcripts_.Encode(kOther, "She was" + marker_), spelled);
}

TEST_F(TranscriptsTest, TheOldestAreForgottenFirst) {
  transcripts_.Add(kScope, "old", Spelled("old"));
  transcripts_.Add(kScope, std::string(700, 'x'), Ids(700, 7));
  EXPECT_EQ(transcripts_.Encode(kScope, "old" + marker_)[0], Spelled("old")[0]);  // used: newest
  transcripts_.Add(kScope, std::string(700, 'y'), Ids(700, 8));
  EXPECT_EQ(transcripts_.Encode(kScope, std::string(700, 'x') + marker_),
            Encode(std::string(700, 'x') + marker_));
  EXPECT_EQ(transcripts_.Encode(kScope, "old" + marker_)[0], Spelled("old")[0]);
}

}  // namespace
}  // namespace cachalot::serve
