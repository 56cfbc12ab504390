// SPDX-License-Identifier: Apache-2.0
// The sampler against a plain one, against the distribution it promises, and rule by rule.
#include "cachalot/engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <set>

#include "cachalot/base/rng.h"

namespace cachalot::engine {
namespace {

using Logits = std::vector<float>;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

uint32_t SampleOnce(Logits logits, const SamplingParams& params, uint64_t position = 0,
                    TokenConstraint* constraint = nullptr) {
  Sampler sampler(static_cast<uint32_t>(logits.size()));
  return sampler.Sample(logits, {}, params, position, constraint);
}

// Logits after bias, penalties and constraint: greedy sampling stops there.
Logits Adjusted(Logits logits, SamplingParams params, const TokenHistory& history,
                TokenConstraint* constraint = nullptr) {
  params.temperature = 0.0f;
  Sampler sampler(static_cast<uint32_t>(logits.size()));
  sampler.Sample(logits, history, params, 0, constraint);
  return logits;
}

Logits RandomLogits(size_t size, uint64_t seed, double spread) {
  Logits logits(size);
  for (size_t i = 0; i < size; ++i) {
    logits[i] = static_cast<float>(spread * (UniformOpen(CounterRandom(seed, 77, i)) - 0.5));
  }
  return logits;
}

struct AllowOnly : TokenConstraint {
  explicit AllowOnly(std::set<uint32_t> allowed) : ids(std::move(allowed)) {}
  void ApplyMask(std::span<uint64_t> mask) override {
    for (size_t i = 0; i < 64 * mask.size(); ++i) {
      if (!ids.contains(static_cast<uint32_t>(i))) mask[i / 64] &= ~(uint64_t{1} << (i % 64));
    }
  }
  void Accept(uint32_t) override {}
  std::set<uint32_t> ids;
};

// --- A plain sampler: sort everything, cut, normalize, add noise. ---

std::vector<uint32_t> PlainKept(const Logits& logits, const SamplingParams& params) {
  std::vector<uint32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0u);
  std::ranges::stable_sort(ids, std::greater{}, [&](uint32_t id) { return logits[id]; });
  if (params.top_k > 0 && params.top_k < ids.size()) ids.resize(params.top_k);
  std::vector<double> p;
  for (const uint32_t id : ids) p.push_back(std::exp(double{logits[id]} - logits[ids[0]]));
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  size_t kept = 0;
  double sum = 0.0;
  while (kept < ids.size() && (kept == 0 || params.top_p == 1.0f || sum < params.top_p * total)) {
    sum += p[kept++];
  }
  while (kept > 1 && p[kept - 1] < params.min_p) --kept;
  ids.resize(kept);
  return ids;
}

Logits Heated(Logits logits, const SamplingParams& params) {
  for (float& logit : logits) logit /= params.temperature;
  return logits;
}

uint32_t PlainSample(const Logits& cold, const SamplingParams& params, uint64_t position) {
  const Logits logits = Heated(cold, params);
  uint32_t best = 0;
  double best_value = -std::numeric_limits<double>::infinity();
  for (const uint32_t id : PlainKept(logits, params)) {
    const double u = UniformOpen(CounterRandom(params.seed, position, id));
    const double value = logits[id] - std::log(-std::log(u));
    if (value > best_value) {
      best = id;
      best_value = value;
    }
  }
  return best;
}

// 5,000 tokens: more than the sampler sorts at first, so that its growing sort is met.
TEST(SamplerTest, EqualsThePlainSampler) {
  constexpr size_t kVocab = 5000;
  Sampler sampler(kVocab);
  for (uint64_t n = 0; n < 400; ++n) {
    const auto pick = [n](uint64_t what, size_t count) {
      return CounterRandom(n, 5, what) % count;
    };
    SamplingParams params{.seed = n};
    params.temperature = std::array{1.0f, 0.3f, 1.7f, 5.0f}[pick(0, 4)];
    params.top_p = std::array{1.0f, 0.95f, 0.5f, 0.999f}[pick(1, 4)];
    params.top_k = std::array{0u, 1u, 40u, 700u, 9000u}[pick(2, 5)];
    params.min_p = std::array{0.0f, 0.0f, 0.05f, 1.0f}[pick(3, 4)];
    const Logits logits = RandomLogits(kVocab, n, std::array{0.0, 3.0, 20.0, 200.0}[pick(4, 4)]);
    Logits scratch = logits;
    ASSERT_EQ(sampler.Sample(scratch, {}, params, n, nullptr), PlainSample(logits, params, n))
        << "case " << n;
  }
}

// Counts of N draws against probabilities. For chi^2 with k degrees of freedom,
// P(X >= k + 2 sqrt(k x) + 2 x) <= exp(-x) [Laurent, Massart 2000, lemma 1]; x = 14 is one in a
// million. Expected counts are at least 20, where the chi^2 law holds well.
void ExpectDistribution(const Logits& logits, const SamplingParams& params) {
  constexpr uint64_t kDraws = 40000;
  const Logits heated = Heated(logits, params);
  const std::vector<uint32_t> kept = PlainKept(heated, params);
  double total = 0.0;
  for (const uint32_t id : kept) total += std::exp(double{heated[id]});
  std::vector<double> counts(logits.size());
  for (uint64_t position = 0; position < kDraws; ++position) {
    ++counts[SampleOnce(logits, params, position)];
  }
  double chi2 = 0.0;
  double seen = 0.0;
  for (const uint32_t id : kept) {
    const double expected = kDraws * std::exp(double{heated[id]}) / total;
    ASSERT_GE(expected, 20.0);
    chi2 += (counts[id] - expected) * (counts[id] - expected) / expected;
    seen += counts[id];
  }
  EXPECT_EQ(seen, kDraws) << "a token outside the kept set was drawn";
  const double k = static_cast<double>(kept.size()) - 1.0;
  EXPECT_LE(chi2, k + 2.0 * std::sqrt(k * 14.0) + 28.0);
}

TEST(SamplerTest, DrawsFollowTheSoftmax) {
  const Logits logits = RandomLogits(16, 3, 4.0);
  ExpectDistribution(logits, {.seed = 1});
  ExpectDistribution(logits, {.temperature = 0.7f, .seed = 2});
  ExpectDistribution(logits, {.temperature = 3.0f, .seed = 3});
}

TEST(SamplerTest, TruncatedDrawsFollowWhatIsLeft) {
  const Logits logits = RandomLogits(16, 4, 4.0);
  ExpectDistribution(logits, {.top_k = 5, .seed = 4});
  ExpectDistribution(logits, {.top_p = 0.6f, .seed = 5});
  ExpectDistribution(logits, {.min_p = 0.2f, .seed = 6});
  ExpectDistribution(logits, {.temperature = 1.5f, .top_p = 0.8f, .top_k = 9, .min_p = 0.1f});
}

std::set<uint32_t> Drawn(const Logits& logits, SamplingParams params) {
  std::set<uint32_t> drawn;
  for (uint64_t position = 0; position < 4000; ++position) {
    drawn.insert(SampleOnce(logits, params, position));
  }
  return drawn;
}

// Probabilities 0.4, 0.3, 0.2, 0.1. A token of 0.1 is missed by 4,000 draws once in 10^183.
TEST(SamplerTest, TopPKeepsTheSmallestSetThatReachesIt) {
  const Logits logits = {std::log(0.2f), std::log(0.4f), std::log(0.1f), std::log(0.3f)};
  using Ids = std::set<uint32_t>;
  EXPECT_EQ(Drawn(logits, {.top_p = 0.39f}), Ids({1}));
  EXPECT_EQ(Drawn(logits, {.top_p = 0.41f}), Ids({1, 3}));
  EXPECT_EQ(Drawn(logits, {.top_p = 0.69f}), Ids({1, 3}));
  EXPECT_EQ(Drawn(logits, {.top_p = 0.89f}), Ids({0, 1, 3}));
  EXPECT_EQ(Drawn(logits, {.top_p = 0.91f}), Ids({0, 1, 2, 3}));
  EXPECT_EQ(Drawn(logits, {.top_p = 1e-6f}), Ids({1})) << "at least one stays";
  // Of the three that top_k leaves, 0.4 / 0.9 and 0.3 / 0.9 are 0.78.
  EXPECT_EQ(Drawn(logits, {.top_p = 0.75f, .top_k = 3}), Ids({1, 3}));
}

TEST(SamplerTest, MinPIsRelativeToTheLargest) {
  const Logits logits = {std::log(0.2f), std::log(0.4f), std::log(0.1f), std::log(0.3f)};
  EXPECT_EQ(Drawn(logits, {.min_p = 0.4f}), std::set<uint32_t>({0, 1, 3}));
  EXPECT_EQ(Drawn(logits, {.min_p = 1.0f}), std::set<uint32_t>({1}));
}

TEST(SamplerTest, TiesAtTheCutGoToLowerIds) {
  const Logits logits(100, 1.5f);
  EXPECT_EQ(Drawn(logits, {.top_k = 3}), std::set<uint32_t>({0, 1, 2}));
}

TEST(SamplerTest, ZeroTemperatureTakesTheLargestTiesToLowerIds) {
  EXPECT_EQ(SampleOnce({1, 7, 3, 7}, {.temperature = 0.0f}), 1u);
  EXPECT_EQ(SampleOnce({-kInf, -5, -5}, {.temperature = 0.0f}), 1u);
}

TEST(SamplerTest, NanNeverWins) {
  for (const float temperature : {0.0f, 1.0f, 0.5f}) {
    for (const uint32_t top_k : {0u, 2u}) {
      const SamplingParams params{.temperature = temperature, .top_k = top_k};
      for (uint64_t position = 0; position < 200; ++position) {
        EXPECT_EQ(SampleOnce({kNan, -1e30f, kNan}, params, position), 1u);
      }
    }
  }
}

// A broken model or constraint gives a token, not a crash.
TEST(SamplerTest, HopelessLogitsGiveAnIdOfTheVocabulary) {
  AllowOnly nothing({});
  for (const float temperature : {0.0f, 1.0f}) {
    for (const float top_p : {1.0f, 0.5f}) {
      const SamplingParams params{.temperature = temperature, .top_p = top_p};
      EXPECT_LT(SampleOnce({kNan, kNan, kNan}, params), 3u);
      EXPECT_LT(SampleOnce({-kInf, -kInf, -kInf}, params), 3u);
      EXPECT_LT(SampleOnce({1, 2, 3}, params, 0, &nothing), 3u);
      EXPECT_EQ(SampleOnce({1, kInf, 3}, params), 1u);
    }
  }
}

TEST(SamplerTest, TokenDependsOnSeedAndPositionOnly) {
  const Logits logits = RandomLogits(1000, 9, 6.0);
  const TokenHistory history{};
  Sampler used(1000);
  std::vector<uint32_t> first;
  for (uint64_t position = 0; position < 50; ++position) {
    Logits scratch = logits;
    first.push_back(used.Sample(scratch, history, {.seed = 5}, position, nullptr));
  }
  // Backwards, by a sampler that does other work in between.
  for (uint64_t position = 50; position-- > 0;) {
    Logits scratch = logits;
    used.Sample(scratch, history, {.top_p = 0.3f, .seed = 6}, position, nullptr);
    EXPECT_EQ(SampleOnce(logits, {.seed = 5}, position), first[position]);
    scratch = logits;
    EXPECT_EQ(used.Sample(scratch, history, {.seed = 5}, position, nullptr), first[position]);
  }
  EXPECT_GT(std::set(first.begin(), first.end()).size(), 20u);
}

TEST(SamplerTest, RepetitionPenaltyShrinksSeenIdsOnce) {
  const std::vector<uint32_t> prompt = {0, 0, 2};
  const std::vector<uint32_t> generated = {2, 1};
  const TokenHistory history{prompt, generated};
  EXPECT_EQ(Adjusted({4, -4, 6, 8}, {.repetition_penalty = 2.0f}, history), Logits({2, -8, 3, 8}));
}

TEST(SamplerTest, PresenceAndFrequencyLookAtGeneratedIdsOnly) {
  const std::vector<uint32_t> prompt = {0, 0, 2};
  const std::vector<uint32_t> generated = {2, 1, 2, 2};
  const TokenHistory history{prompt, generated};
  EXPECT_EQ(Adjusted({4, 4, 4, 4}, {.presence_penalty = 1.0f}, history), Logits({4, 3, 3, 4}));
  EXPECT_EQ(Adjusted({4, 4, 4, 4}, {.frequency_penalty = 0.5f}, history),
            Logits({4, 3.5f, 2.5f, 4}));
}

TEST(SamplerTest, PenaltiesLeaveNoTraceForTheNextCall) {
  const std::vector<uint32_t> ids = {1, 1, 2};
  const TokenHistory history{ids, ids};
  const SamplingParams params{
      .temperature = 0.0f, .repetition_penalty = 1.5f, .frequency_penalty = 1.0f};
  Sampler sampler(4);
  Logits first = {1, 2, 3, 4};
  Logits second = first;
  sampler.Sample(first, history, params, 0, nullptr);
  sampler.Sample(second, history, params, 0, nullptr);
  EXPECT_EQ(first, second);
}

TEST(SamplerTest, BiasComesBeforePenaltiesAndCannotLiftAConstraint) {
  const std::vector<uint32_t> generated = {0};
  const TokenHistory history{{}, generated};
  SamplingParams params{.repetition_penalty = 2.0f, .logit_bias = {{0, 3.0f}, {3, 1000.0f}}};
  AllowOnly allowed({0, 1});
  EXPECT_EQ(Adjusted({1, 1, 1, 1}, params, history, &allowed), Logits({2, 1, -kInf, -kInf}));
}

TEST(SamplerTest, ConstraintHoldsUnderSampling) {
  AllowOnly allowed({3, 70, 129});
  const Logits logits = RandomLogits(130, 8, 50.0);
  for (uint64_t position = 0; position < 300; ++position) {
    for (const float top_p : {1.0f, 0.9f}) {
      const uint32_t id =
          SampleOnce(logits, {.temperature = 20.0f, .top_p = top_p}, position, &allowed);
      EXPECT_TRUE(allowed.ids.contains(id)) << id;
    }
  }
}

TEST(SamplingParamsTest, EachFieldIsRefusedByName) {
  const auto message = [](const SamplingParams& params) {
    const Status status = params.Validate(100);
    return status.ok() ? std::string("accepted") : status.error().message;
  };
  EXPECT_EQ(message({}), "accepted");
  const std::vector<std::pair<SamplingParams, std::string>> bad = {
      {{.temperature = -0.1f}, "temperature"},
      {{.temperature = kNan}, "temperature"},
      {{.temperature = kInf}, "temperature"},
      {{.top_p = 0.0f}, "top_p"},
      {{.top_p = 1.1f}, "top_p"},
      {{.top_p = kNan}, "top_p"},
      {{.min_p = -0.1f}, "min_p"},
      {{.min_p = 1.5f}, "min_p"},
      {{.repetition_penalty = 0.0f}, "repetition_penalty"},
      {{.repetition_penalty = kNan}, "repetition_penalty"},
      {{.presence_penalty = kNan}, "presence_penalty"},
      {{.frequency_penalty = -kInf}, "frequency_penalty"},
      {{.logit_bias = {{100, 1.0f}}}, "logit_bias names id 100"},
      {{.logit_bias = {{1, kInf}}}, "logit_bias"},
  };
  for (const auto& [params, name] : bad) {
    EXPECT_NE(message(params).find(name), std::string::npos) << message(params);
  }
}

}  // namespace
}  // namespace cachalot::engine
