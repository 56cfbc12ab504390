// SPDX-License-Identifier: Apache-2.0
// The products of a training step of the bench-train model: 4,096 tokens, widths 128 to 2,048.
// Percentages are of the float32 limit measured at the start of this run with the same threads.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <map>
#include <vector>

#include "cachalot/kernels/gemm.h"
#include "cachalot/kernels/machine_limits.h"
#include "cachalot/kernels/matmul_test_util.h"

namespace cachalot::kernels {
namespace {

double Limit(size_t threads) {
  static std::map<size_t, double> limits;
  if (limits.find(threads) == limits.end()) {
    ThreadPool pool(threads);
    limits[threads] =
        MeasureMachineLimits({&pool, Path::kSimd, SupportedTargets().front()}).f32_flop_per_s;
    std::fprintf(stderr, "limit threads=%zu f32=%.0f Gflop/s\n", threads, limits[threads] / 1e9);
  }
  return limits[threads];
}

void BM_Gemm(benchmark::State& state, bool ta, bool tb, bool bf16) {
  const auto m = static_cast<size_t>(state.range(0));
  const auto n = static_cast<size_t>(state.range(1));
  const auto k = static_cast<size_t>(state.range(2));
  const auto threads = static_cast<size_t>(state.range(3));
  const double limit = Limit(threads);
  ThreadPool pool(threads);
  const Context ctx{&pool, Path::kSimd, SupportedTargets().front()};
  const std::vector<float> a = RandomVector<float>(m * k, 1);
  const std::vector<float> b = RandomVector<float>(n * k, 2);
  std::vector<float> c(m * n);
  const GemmJob job{.a = {a.data(), ta ? k : m, ta ? m : k},
                    .b = {b.data(), tb ? n : k, tb ? k : n},
                    .c = {c.data(), m, n},
                    .a_transposed = ta,
                    .b_transposed = tb,
                    .accumulate = ta,
                    .bf16 = bf16};
  for (auto _ : state) Gemm(job, ctx);
  const double flop = 2.0 * static_cast<double>(m * n * k);
  state.counters["Gflop/s"] =
      benchmark::Counter(flop / 1e9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["%f32"] =
      benchmark::Counter(100 * flop / limit, benchmark::Counter::kIsIterationInvariantRate);
}

void ForwardShapes(benchmark::internal::Benchmark* b) {
  b->Args({4096, 256, 256, 1})->Args({4096, 256, 256, 2})->Args({4096, 512, 128, 2});
  b->Args({4096, 24, 1024, 2})->Args({4096, 2048, 256, 2})->UseRealTime();
}
void InputShapes(benchmark::internal::Benchmark* b) {
  b->Args({4096, 256, 256, 2})->Args({4096, 128, 512, 2})->Args({4096, 1024, 24, 2});
  b->Args({4096, 256, 2048, 2})->UseRealTime();
}
void WeightShapes(benchmark::internal::Benchmark* b) {
  b->Args({256, 256, 4096, 2})->Args({512, 128, 4096, 2})->Args({24, 1024, 4096, 2});
  b->Args({2048, 256, 4096, 2})->UseRealTime();
}
BENCHMARK_CAPTURE(BM_Gemm, forward, false, true, false)->Apply(ForwardShapes);
BENCHMARK_CAPTURE(BM_Gemm, d_input, false, false, false)->Apply(InputShapes);
BENCHMARK_CAPTURE(BM_Gemm, d_weight, true, false, false)->Apply(WeightShapes);
BENCHMARK_CAPTURE(BM_Gemm, forward_bf16, false, true, true)->Apply(ForwardShapes);
BENCHMARK_CAPTURE(BM_Gemm, d_input_bf16, false, false, true)->Apply(InputShapes);
BENCHMARK_CAPTURE(BM_Gemm, d_weight_bf16, true, false, true)->Apply(WeightShapes);

}  // namespace
}  // namespace cachalot::kernels
