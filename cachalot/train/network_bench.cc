// SPDX-License-Identifier: Apache-2.0
// Forward and backward of the model of ../shared/golden/train: tokens/s, and the share of the
// float32 multiply-add peak at 41.5 MFLOP a token [shared/golden/train/README.md, issue 6].
#include <benchmark/benchmark.h>

#include <cstdio>

#include "cachalot/base/rng.h"
#include "cachalot/kernels/machine_limits.h"
#include "cachalot/train/network.h"

namespace cachalot::train {
namespace {

constexpr double kFlopPerToken = 41.5e6;
constexpr size_t kSamples = 8;
constexpr size_t kSampleTokens = 512;

model::Config BenchTrainConfig() {
  model::Config c;
  c.vocab_size = 2048;
  c.hidden_size = 256;
  c.num_hidden_layers = 6;
  c.num_attention_heads = 4;
  c.head_dim = 128;
  c.qk_rope_head_dim = 64;
  c.q_lora_rank = 128;
  c.o_groups = 2;
  c.o_lora_rank = 128;
  c.sliding_window = 64;
  c.compress_ratios = {0, 0, 4, 128, 4, 128, 0};
  c.index_n_heads = 8;
  c.index_head_dim = 128;
  c.index_topk = 128;  // all entries of 512 tokens
  c.n_routed_experts = 8;
  c.num_experts_per_tok = 2;
  c.moe_intermediate_size = 128;
  c.num_hash_layers = 1;
  c.routed_scaling_factor = 1.5f;
  c.num_nextn_predict_layers = 1;
  return c;
}

TrainBatch RandomBatch(const model::Config& config) {
  TrainBatch batch;
  std::vector<uint32_t> tokens(kSampleTokens + 2);
  for (size_t s = 0; s < kSamples; ++s) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<uint32_t>(CounterRandom(9, s, i) % config.vocab_size);
    }
    AppendSample(tokens.data(), kSampleTokens, batch);
  }
  return batch;
}

void BM_ForwardBackward(benchmark::State& state, Precision precision) {
  ThreadPool pool(static_cast<size_t>(state.range(0)), ThreadPool::kLongSpin);
  const kernels::Context ctx{&pool, kernels::Path::kSimd, kernels::SupportedTargets().front()};
  const model::Config config = BenchTrainConfig();
  auto set = MakeParameters(config);
  if (!set.ok()) return state.SkipWithError("no parameters");
  InitializeParameters(config, 1, *set);
  const double peak = kernels::MeasureMachineLimits(ctx, size_t{1} << 26).f32_flop_per_s;
  Network<float> network(config, *set, ctx, {.precision = precision});
  const TrainBatch batch = RandomBatch(config);
  const auto tokens = static_cast<double>(batch.num_tokens());
  const RunOptions options{.scales = {.ce = 1 / tokens, .mtp = 0.3 / tokens}};
  network.Run(batch, options);
  for (auto _ : state) network.Run(batch, options);
  using benchmark::Counter;
  state.counters["tokens/s"] = Counter(tokens, Counter::kIsIterationInvariantRate);
  state.counters["%f32peak"] =
      Counter(100 * tokens * kFlopPerToken / peak, Counter::kIsIterationInvariantRate);
  state.counters["peakGflops"] = peak / 1e9;
  state.counters["keptMB"] = static_cast<double>(network.kept_bytes()) / 1e6;
}
BENCHMARK_CAPTURE(BM_ForwardBackward, bf16, Precision::kBf16)
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_ForwardBackward, float32, Precision::kFloat32)
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace cachalot::train
