// SPDX-License-Identifier: Apache-2.0
// What is made again in the backward pass changes memory as planned, and no bit.
#include "cachalot/train/recompute.h"

#include <gtest/gtest.h>

#include <cstring>

#include "cachalot/train/kept.h"
#include "cachalot/train/memory_plan.h"
#include "cachalot/train/network.h"
#include "cachalot/train/test_support.h"

namespace cachalot::train {
namespace {

RecomputeSet Everything() {
  RecomputeSet all;
  for (size_t i = 0; i < RecomputableNames().size(); ++i) all.Add(static_cast<Recomputable>(i));
  return all;
}

// Each choice alone, then all together.
std::vector<RecomputeSet> Choices() {
  std::vector<RecomputeSet> choices;
  for (size_t i = 0; i < RecomputableNames().size(); ++i) {
    choices.emplace_back().Add(static_cast<Recomputable>(i));
  }
  choices.push_back(Everything());
  return choices;
}

std::string NameOf(size_t choice) {
  const auto names = RecomputableNames();
  return choice < names.size() ? std::string(names[choice]) : "everything";
}

TEST(StreamGroupSize, IsTheOneOfLeastMemory) {
  EXPECT_EQ(StreamGroupSize(12, {}), 1u);
  const auto streams = [](size_t halves, size_t group) {
    size_t kept = 0;
    for (size_t i = 0; i < halves; ++i) kept += KeepsStreams(i, group) ? 1 : 0;
    return kept + group - 1;
  };
  for (size_t halves = 1; halves <= 130; ++halves) {
    const size_t group = StreamGroupSize(halves, Everything());
    for (size_t other = 1; other <= halves; ++other) {
      EXPECT_LE(streams(halves, group), streams(halves, other)) << halves << " halves";
    }
  }
  EXPECT_EQ(StreamGroupSize(10, Everything()), 3u);  // 3 kept, 2 made again
  EXPECT_EQ(StreamGroupSize(86, Everything()), 8u);  // of Flash: 10 kept, 7 made again
}

TEST(Kept, IsMadeAgainOnlyAfterAnotherTookItsPlace) {
  SharedPlace<Matrix<float>> place;
  Kept<Matrix<float>> a, b, own;
  a.Share(place);
  b.Share(place);
  int made = 0;
  const auto make = [&made](float value) {
    return [&made, value](Matrix<float>& m) {
      ++made;
      m.Resize(1, 1).data[0] = value;
    };
  };
  a.Make(make(1));
  own.Make([&](Matrix<float>& m) { m.Resize(1, 1).data[0] = 10 * a.view().data[0]; });
  EXPECT_EQ(a.view().data[0], 1.0f);
  EXPECT_EQ(made, 1);
  b.Make(make(2));
  EXPECT_EQ(a.view().data[0], 1.0f);
  EXPECT_EQ(a.view().data[0], 1.0f);
  EXPECT_EQ(made, 3);
  EXPECT_EQ(b.view().data[0], 2.0f);
  EXPECT_EQ(made, 4);
  EXPECT_EQ(own.view().data[0], 10.0f);
  EXPECT_EQ(a.bytes(), 0u);
  EXPECT_EQ(own.bytes(), sizeof(float));
}

struct StageCase {
  const char* name;
  RunOptions options;
  Precision precision = Precision::kFloat32;
};

const LossScales kScales = {.ce = 0.03, .mtp = 0.01, .balance = 0.2};
const LossScales kAllScales = {.ce = 0.03, .mtp = 0.01, .balance = 0.2, .indexer = 0.1};

const StageCase kStages[] = {
    {"Dense", {.scales = kScales, .csa = CsaMode::kDense}},
    {"DenseBf16", {.scales = kScales, .csa = CsaMode::kDense}, Precision::kBf16},
    {"IndexerWarmup",
     {.scales = {.indexer = 0.1}, .csa = CsaMode::kDense, .indexer_loss = true},
     Precision::kBf16},
    {"Sparse", {.scales = kAllScales, .indexer_loss = true}},
    {"SparseBf16", {.scales = kAllScales, .indexer_loss = true}, Precision::kBf16},
    {"Quantized", {.scales = kAllScales, .indexer_loss = true, .quantized_activations = true}},
    {"QuantizedBf16",
     {.scales = kAllScales, .indexer_loss = true, .quantized_activations = true},
     Precision::kBf16},
};

// Ten halves: groups of three. Two layers with an indexer, one HCA, an MTP block.
model::Config FiveLayers() {
  model::Config config = SmallConfig();
  config.num_hidden_layers = 5;
  config.compress_ratios = {0, 4, 128, 4, 0, 0};
  return config;
}

TrainBatch Batch(const model::Config& config, size_t first, size_t second) {
  std::vector<uint32_t> tokens;
  for (size_t i = 0; i < first + second + 4; ++i) {
    tokens.push_back(static_cast<uint32_t>(CounterRandom(3, i, 0) % config.vocab_size));
  }
  TrainBatch batch;
  AppendSample(tokens.data(), first, batch);
  AppendSample(tokens.data() + first + 2, second, batch);
  return batch;
}

class Recomputation : public testing::TestWithParam<StageCase> {
 protected:
  LossSums Run(const RecomputeSet& recompute, ParameterSet& set) {
    Network<float> network(config_, set, ctx_,
                           {.precision = GetParam().precision, .recompute = recompute});
    // The second batch finds everything that the first left.
    network.Run(Batch(config_, 131, 20), GetParam().options);
    return network.Run(Batch(config_, 40, 33), GetParam().options);
  }

  const model::Config config_ = FiveLayers();
  ThreadPool pool_{2};
  kernels::Context ctx_{&pool_, kernels::Path::kSimd, kernels::SupportedTargets().front()};
};

TEST_P(Recomputation, ChangesNoBit) {
  ParameterSet kept = RandomSet(config_, 8);
  const LossSums want = Run({}, kept);
  const std::vector<RecomputeSet> choices = Choices();
  for (size_t c = 0; c < choices.size(); ++c) {
    ParameterSet set = RandomSet(config_, 8);
    const LossSums sums = Run(choices[c], set);
    EXPECT_EQ(sums.ce, want.ce) << NameOf(c);
    EXPECT_EQ(sums.indexer, want.indexer) << NameOf(c);
    for (size_t i = 0; i < set.parameters.size(); ++i) {
      const Parameter& p = set.parameters[i];
      EXPECT_EQ(std::memcmp(p.grad.data(), kept.parameters[i].grad.data(), p.size() * 4), 0)
          << NameOf(c) << ": " << p.name;
    }
  }
}

// Entries of a sample's last, incomplete block are planned and not there: less than a token's.
TEST_P(Recomputation, TakesTheMemoryThatIsPlanned) {
  std::vector<RecomputeSet> choices = Choices();
  choices.emplace_back();
  const TrainBatch batch = Batch(config_, 131, 20);
  for (size_t c = 0; c < choices.size(); ++c) {
    ParameterSet set = RandomSet(config_, 8);
    Network<float> network(config_, set, ctx_, {.recompute = choices[c]});
    network.Run(batch, GetParam().options);
    const ActivationOptions options{.length = batch.max_length(),
                                    .indexer = GetParam().options.indexer_loss,
                                    .recompute = choices[c]};
    uint64_t floats = 0;
    for (uint32_t l = 0; l < config_.num_hidden_layers; ++l) {
      floats += SavedFloatsPerToken(config_, l, options);
    }
    const auto tokens = static_cast<double>(batch.num_tokens());
    EXPECT_NEAR(static_cast<double>(network.kept_bytes()) / static_cast<double>(4 * floats), tokens,
                1.5)
        << NameOf(c);
    EXPECT_EQ(network.recomputed_bytes(),
              4 * batch.num_tokens() * RecomputedFloatsPerToken(config_, options))
        << NameOf(c);
  }
}

INSTANTIATE_TEST_SUITE_P(Stages, Recomputation, testing::ValuesIn(kStages),
                         [](const auto& stage) { return std::string(stage.param.name); });

}  // namespace
}  // namespace cachalot::train
