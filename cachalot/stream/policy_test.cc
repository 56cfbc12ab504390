// SPDX-License-Identifier: Apache-2.0
#include "cachalot/stream/policy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cachalot/base/rng.h"
#include "cachalot/stream/trace.h"

namespace cachalot::stream {
namespace {

PolicyOptions Options(PolicyKind kind) {
  return {.kind = kind, .num_layers = 2, .num_experts = 16, .half_life = 8};
}

TEST(Policy, NamesGoRoundTrip) {
  for (const PolicyKind kind : {PolicyKind::kLru, PolicyKind::kLfu, PolicyKind::kCost}) {
    EXPECT_EQ(PolicyFromName(PolicyName(kind)), kind);
  }
  EXPECT_EQ(PolicyFromName("best"), std::nullopt);
}

TEST(Policy, LruValuesTheLastUse) {
  const auto policy = MakePolicy(Options(PolicyKind::kLru));
  policy->Used(3, 100, 1);
  policy->Used(4, 1, 1);
  EXPECT_LT(policy->Value(3, 1), policy->Value(4, 1));
  EXPECT_LT(policy->Value(5, 1), policy->Value(3, 1));
}

TEST(Policy, LfuHalvesUsesEveryHalfLife) {
  const auto policy = MakePolicy(Options(PolicyKind::kLfu));
  policy->Used(3, 4, 0);
  EXPECT_DOUBLE_EQ(policy->Value(3, 8), 2.0);
  EXPECT_DOUBLE_EQ(policy->Value(3, 24), 0.5);
  policy->Used(3, 1, 24);
  EXPECT_DOUBLE_EQ(policy->Value(3, 24), 1.5);
}

TEST(Policy, CostPrefersLayersThatAreWaitedFor) {
  const auto policy = MakePolicy(Options(PolicyKind::kCost));
  policy->Used(3, 1, 0);
  policy->Used(16 + 3, 1, 0);
  EXPECT_DOUBLE_EQ(policy->Value(3, 0), policy->Value(16 + 3, 0));
  policy->Waited(0, 0.001);
  policy->Waited(1, 0.002);
  EXPECT_LT(policy->Value(3, 0), policy->Value(16 + 3, 0));
}

// Experts of one layer drawn with weights 1 / rank, two a token.
ExpertTrace SkewedTrace(uint64_t seed) {
  ExpertTrace trace;
  for (uint64_t t = 0; t < 3000; ++t) {
    std::vector<model::WantedExpert> wanted;
    for (uint64_t a = 0; wanted.size() < 2; ++a) {
      const double u = UniformOpen(CounterRandom(seed, t, a));
      const auto expert = static_cast<uint32_t>(std::pow(16.0, u)) - 1;
      if (wanted.empty() || wanted[0].expert != expert) wanted.push_back({expert, 1});
    }
    trace.Add(0, t + 1, wanted);
  }
  return trace;
}

TEST(Replay, NobodyBeatsBelady) {
  const ExpertTrace trace = SkewedTrace(1);
  for (const size_t slots : {2, 4, 8, 12}) {
    const double best = BeladyHitRate(trace, slots, 16);
    for (const PolicyKind kind : {PolicyKind::kLru, PolicyKind::kLfu, PolicyKind::kCost}) {
      PolicyOptions options = Options(kind);
      options.half_life = 256;
      EXPECT_LE(ReplayHitRate(trace, slots, options), best) << slots;
    }
  }
  EXPECT_GT(BeladyHitRate(trace, 16, 16, 100), 0.999);
}

TEST(Replay, PopularityThatStaysIsForLfu) {
  const ExpertTrace trace = SkewedTrace(2);
  PolicyOptions lfu = Options(PolicyKind::kLfu);
  lfu.half_life = 512;
  EXPECT_GT(ReplayHitRate(trace, 4, lfu), ReplayHitRate(trace, 4, Options(PolicyKind::kLru)));
}

TEST(Replay, CountsBeladyByHand) {
  ExpertTrace trace;  // two slots, one expert an ask: 0 1 2 0 1: keep 0 when 2 comes
  uint64_t now = 0;
  for (const uint32_t e : {0u, 1u, 2u, 0u, 1u}) {
    const model::WantedExpert wanted{e, 1};
    trace.Add(0, ++now, {&wanted, 1});
  }
  EXPECT_DOUBLE_EQ(BeladyHitRate(trace, 2, 16), 0.2);
  EXPECT_DOUBLE_EQ(BeladyHitRate(trace, 3, 16), 0.4);
  EXPECT_DOUBLE_EQ(ReplayHitRate(trace, 2, Options(PolicyKind::kLru)), 0.0);
}

}  // namespace
}  // namespace cachalot::stream
