// SPDX-License-Identifier: Apache-2.0
// Activations of the quantization-aware phase: the values that the engine's caches hold, where the
// engine rounds them.
#include "cachalot/train/activation_format.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "cachalot/kernels/quantize.h"
#include "cachalot/model/forward.h"
#include "cachalot/train/export.h"
#include "cachalot/train/network.h"
#include "cachalot/train/test_support.h"

namespace cachalot::train {
namespace {

std::vector<float> RandomRows(size_t count, uint64_t seed) {
  std::vector<float> x(count);
  for (size_t i = 0; i < count; ++i) {
    x[i] = static_cast<float>(4 * UniformOpen(CounterRandom(seed, i, 0)) - 2);
  }
  return x;
}

class ActivationFormat : public testing::Test {
 protected:
  ThreadPool pool_{2};
  kernels::Context ctx_{&pool_, kernels::Path::kSimd, kernels::SupportedTargets().front()};
};

TEST_F(ActivationFormat, EntriesAreWhatACacheReturns) {
  constexpr size_t kRows = 70, kDim = 192, kRope = 64;  // more rows than one token block
  std::vector<float> x = RandomRows(kRows * kDim, 1);
  const std::vector<float> original = x;
  RoundTripKvEntries<float>({x.data(), kRows, kDim}, kRope, ctx_);
  const KvLayout layout{.format = KvFormat::kNative, .head_dim = kDim, .rope_dim = kRope};
  std::vector<uint8_t> bytes(layout.row_bytes());
  std::vector<float> read(kDim);
  for (size_t r = 0; r < kRows; ++r) {
    const KvRows row(layout, bytes.data(), 1);
    kernels::StoreKvEntry({original.data() + r * kDim, kDim}, row, 0);
    kernels::LoadKvEntry(row, 0, read);
    EXPECT_EQ(std::memcmp(read.data(), x.data() + r * kDim, kDim * sizeof(float)), 0) << r;
  }
}

TEST_F(ActivationFormat, IndexDotsAreThoseOfFp4) {
  constexpr size_t kRows = 40, kDim = 64;
  std::vector<float> x = RandomRows(kRows * kDim, 2);
  std::vector<float> fp4 = x;
  RoundTripIndexRows<float>({x.data(), kRows, kDim}, ctx_);
  kernels::Hadamard({fp4.data(), kRows, kDim}, ctx_);
  kernels::RoundTripFp4({fp4.data(), kRows, kDim}, ctx_);
  for (size_t i = 0; i + 1 < kRows; ++i) {
    double got = 0, want = 0, norm = 0;
    for (size_t k = 0; k < kDim; ++k) {
      const double a = fp4[i * kDim + k], b = fp4[(i + 1) * kDim + k];
      got += double{x[i * kDim + k]} * double{x[(i + 1) * kDim + k]};
      want += a * b;
      norm += std::abs(a) + std::abs(b);
    }
    // Six butterfly levels and a scale on each side: less than 16 roundings of values below 12.
    EXPECT_NEAR(got, want, 16 * 0x1p-24 * 12 * norm) << i;
  }
}

// With the rounding the network's loss is the engine's up to the order of float32 sums (found: 2e-5
// of what the rounding changes; a value next to a rounding boundary may fall on the other side).
TEST_F(ActivationFormat, NetworkRoundsWhatTheEngineRounds) {
  const model::Config config = SmallConfig();
  ParameterSet set = RandomSet(config, 4);
  TempDir dir;
  const ExportOptions out{.out = dir / "model", .format = ExportFormat::kFloat32};
  ASSERT_TRUE(ExportCheckpoint(config, set, out, ctx_).ok());
  constexpr uint32_t kTokens = 150;
  std::vector<uint32_t> ids;
  for (uint32_t i = 0; i < kTokens + 2; ++i) {
    ids.push_back(static_cast<uint32_t>(CounterRandom(9, i, 0) % config.vocab_size));
  }
  TrainBatch batch;
  AppendSample(ids.data(), kTokens, batch);

  const auto weights = model::LoadWeights(out.out);
  ASSERT_TRUE(weights.ok());
  const auto forward = model::Forward::Create(
      *weights, {.numerics = model::Numerics::kReference, .max_step_tokens = kTokens}, ctx_);
  ASSERT_TRUE(forward.ok());
  const auto blocks = kvcache::BlockPool::Create(
      config.kv_spec(model::KvFormatOf(model::Numerics::kReference), false), 3);
  ASSERT_TRUE(blocks.ok());
  const auto sequence = kvcache::Sequence::Create(**blocks);
  ASSERT_TRUE(sequence.ok() && (*sequence)->Reserve(kTokens).ok());
  std::vector<float> logits(kTokens * config.vocab_size);
  std::vector<uint32_t> rows;
  for (uint32_t i = 0; i < kTokens; ++i) rows.push_back(i);
  const model::SequenceInput input{
      .sequence = sequence->get(), .tokens = {ids.data(), kTokens}, .mtp_next = {}};
  model::ForwardOutputs outputs;
  outputs.logit_rows = rows;
  outputs.logits = {logits.data(), kTokens, config.vocab_size};
  ASSERT_TRUE((*forward)->Step({&input, 1}, outputs).ok());
  double engine = 0;
  for (uint32_t t = 0; t < kTokens; ++t) {
    double sum = 0;
    for (const float x : outputs.logits.Row(t)) sum += std::exp(double{x});
    engine += std::log(sum) - double{outputs.logits.Row(t)[ids[t + 1]]};
  }

  Network<float> network(config, set, ctx_);
  const double plain = network.Run(batch, {.backward = false}).ce;
  const double rounded = network.Run(batch, {.backward = false, .quantized_activations = true}).ce;
  std::printf("engine %.7f, rounded %.7f, plain %.7f\n", engine, rounded, plain);
  EXPECT_LT(std::abs(rounded - engine), 0.01 * std::abs(plain - engine));
}

}  // namespace
}  // namespace cachalot::train
