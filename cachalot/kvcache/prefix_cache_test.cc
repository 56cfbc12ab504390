// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kvcache/prefix_cache.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "cachalot/base/rng.h"
#include "cachalot/kvcache/stamped_sequence.h"

namespace cachalot::kvcache {
namespace {

using Tokens = std::vector<uint32_t>;
constexpr CacheScope kScope{1};

// A row depends on all tokens up to its own: so does its stamp. Below 2^24, where float32 is exact.
Tokens StampsOf(std::span<const uint32_t> tokens) {
  Tokens stamps;
  uint64_t hash = 1;
  for (const uint32_t token : tokens) {
    hash = CounterRandom(hash, token, 0);
    stamps.push_back(static_cast<uint32_t>(hash >> 40));
  }
  return stamps;
}

Tokens Text(uint32_t seed, size_t length) {
  Tokens tokens;
  for (size_t i = 0; i < length; ++i) {
    tokens.push_back(static_cast<uint32_t>(CounterRandom(seed, 0, i) % 50));
  }
  return tokens;
}

// Goes on with `tokens` from the cache and checks every row on the way; returns what was reused.
uint32_t Feed(PrefixCache& cache, CacheScope scope, BlockPool& pool, const Tokens& tokens) {
  StampedSequence sequence(pool);
  const Tokens stamps = StampsOf(tokens);
  const uint32_t reused = cache.Restore(scope, tokens, sequence.sequence());
  RC_ASSERT(reused == sequence.sequence().position());
  RC_ASSERT(reused < tokens.size());
  sequence.SetStamps({stamps.begin(), stamps.begin() + reused});
  sequence.Feed(std::span(stamps).subspan(reused));
  cache.Save(scope, tokens, sequence.sequence());
  return reused;
}

// Texts that fork from each other at random places, near block edges more often than not.
Tokens Fork(const std::vector<Tokens>& texts) {
  Tokens text;
  if (!texts.empty() && *rc::gen::inRange(0, 4) > 0) {
    text = texts[*rc::gen::inRange<size_t>(0, texts.size())];
    const auto edge = *rc::gen::inRange<size_t>(0, text.size() / kBlockTokens + 1) * kBlockTokens;
    const auto offset = *rc::gen::inRange(-20, 21);
    const auto cut = static_cast<ptrdiff_t>(edge) + offset;
    if (*rc::gen::inRange(0, 2) > 0 && cut > 0 && cut < static_cast<ptrdiff_t>(text.size())) {
      text.resize(static_cast<size_t>(cut));
    }
  }
  const auto more = *rc::gen::element<size_t>(1, 2, 17, 100, 128, 300);
  const Tokens tail = Text(*rc::gen::inRange(0u, 3u), more);
  text.insert(text.end(), tail.begin(), tail.end());
  text.resize(std::min<size_t>(text.size(), 1000));
  return text;
}

void RunTexts() {
  const auto pool =
      std::move(BlockPool::Create(SmallSpec(KvFormat::kNative), *rc::gen::element(30, 200)))
          .value();
  const KvSpec& spec = pool->spec();
  const size_t bytes = *rc::gen::element<size_t>(4, 12) * (spec.state_bytes() + spec.block_bytes());
  {
    PrefixCache cache(*pool, bytes);
    std::vector<Tokens> texts;
    const auto rounds = *rc::gen::inRange(1, 20);
    for (int i = 0; i < rounds; ++i) {
      texts.push_back(Fork(texts));
      Feed(cache, CacheScope{*rc::gen::inRange<uint64_t>(1, 3)}, *pool, texts.back());
      RC_ASSERT(cache.stats().bytes <= bytes);
      if (*rc::gen::inRange(0, 10) == 0) cache.Purge(kScope);
    }
  }
  RC_ASSERT(pool->num_free() == pool->num_blocks());
}

TEST(PrefixCacheTest, AnyTextFindsEveryRowItNeeds) {
  const rc::detail::TestMetadata metadata{.id = "prefix", .description = "any text"};
  rc::detail::TestParams params;
  params.seed = 20261124;
  params.maxSuccess = 60;
  const auto result = rc::detail::checkTestable([] { RunTexts(); }, metadata, params);
  EXPECT_TRUE(result.is<rc::detail::SuccessResult>()) << rc::toString(result);
}

class PrefixCacheFixture : public ::testing::Test {
 protected:
  std::unique_ptr<BlockPool> pool_ =
      std::move(BlockPool::Create(SmallSpec(KvFormat::kNative), 100)).value();
  PrefixCache cache_{*pool_, 100 * pool_->spec().state_bytes()};
};

TEST_F(PrefixCacheFixture, TheFurthestCheckpointWins) {
  EXPECT_EQ(Feed(cache_, kScope, *pool_, Text(1, 100)), 0u);
  EXPECT_EQ(Feed(cache_, kScope, *pool_, Text(1, 300)), 100u);
  EXPECT_EQ(Feed(cache_, kScope, *pool_, Text(1, 700)), 300u);
  EXPECT_EQ(Feed(cache_, kScope, *pool_, Text(1, 700)), 699u) << "one token is left to feed";
  EXPECT_EQ(Feed(cache_, kScope, *pool_, Text(1, 690)), 689u) << "a short rewind";
  EXPECT_EQ(Feed(cache_, kScope, *pool_, Text(1, 600)), 300u) << "too far to rewind";
}

TEST_F(PrefixCacheFixture, ARewindGoesBackOverABlocksEdge) {
  Feed(cache_, kScope, *pool_, Text(1, 2 * kBlockTokens + 3));
  Tokens edited = Text(1, 2 * kBlockTokens - 2);
  edited.push_back(49);
  edited.insert(edited.end(), 40, 7);
  EXPECT_EQ(Feed(cache_, kScope, *pool_, edited), 2 * kBlockTokens - 2);
  EXPECT_EQ(Feed(cache_, kScope, *pool_, Text(1, 2 * kBlockTokens + 3)), 2 * kBlockTokens + 2)
      << "the one that was there is untouched";
}

TEST_F(PrefixCacheFixture, ScopesSeeNothingOfEachOther) {
  Feed(cache_, CacheScope{1}, *pool_, Text(1, 300));
  EXPECT_EQ(Feed(cache_, CacheScope{2}, *pool_, Text(1, 300)), 0u);
  cache_.Purge(CacheScope{1});
  EXPECT_EQ(Feed(cache_, CacheScope{2}, *pool_, Text(1, 300)), 299u);
  EXPECT_EQ(Feed(cache_, CacheScope{1}, *pool_, Text(1, 300)), 0u);
}

TEST_F(PrefixCacheFixture, SharedTextIsHeldOnce) {
  Feed(cache_, kScope, *pool_, Text(1, 4 * kBlockTokens));
  const size_t one = cache_.stats().bytes;
  Tokens fork = Text(1, 4 * kBlockTokens);
  fork.push_back(3);
  Feed(cache_, kScope, *pool_, fork);
  const KvSpec& spec = pool_->spec();
  EXPECT_LE(cache_.stats().bytes, one + spec.block_bytes() + spec.state_bytes() + 64);
}

TEST_F(PrefixCacheFixture, TheLeastRecentlyUsedGoesFirst) {
  Feed(cache_, kScope, *pool_, Text(1, 300));
  Feed(cache_, kScope, *pool_, Text(2, 300));
  Feed(cache_, kScope, *pool_, Text(1, 300));
  cache_.SetMaxBytes(cache_.stats().bytes - 1);
  EXPECT_EQ(Feed(cache_, kScope, *pool_, Text(1, 300)), 299u);
  EXPECT_EQ(Feed(cache_, kScope, *pool_, Text(2, 300)), 0u);
}

}  // namespace
}  // namespace cachalot::kvcache
