// SPDX-License-Identifier: Apache-2.0
// Products of the shapes of DeepSeek-V4 Flash, cold: every iteration multiplies another copy of the
// weight, and the copies together are larger than the last-level cache. Percentages are of the
// limits measured at the start of this run with the same threads.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "cachalot/kernels/machine_limits.h"
#include "cachalot/kernels/matmul.h"
#include "cachalot/kernels/matmul_ref.h"
#include "cachalot/kernels/matmul_test_util.h"

namespace cachalot::kernels {
namespace {

constexpr size_t kColdBytes = size_t{1} << 30;

const MachineLimits& Limits(size_t threads) {
  static std::map<size_t, MachineLimits> limits;
  if (limits.find(threads) == limits.end()) {
    ThreadPool pool(threads);
    const MachineLimits found =
        MeasureMachineLimits({&pool, Path::kSimd, SupportedTargets().front()});
    std::fprintf(stderr, "limits threads=%zu read=%.1f GB/s f32=%.0f bf16=%.0f int8=%.0f G/s\n",
                 threads, found.read_bytes_per_s / 1e9, found.f32_flop_per_s / 1e9,
                 found.bf16_flop_per_s / 1e9, found.int8_op_per_s / 1e9);
    limits[threads] = found;
  }
  return limits[threads];
}

// The reference of a few rows. One bad value ends the run: a wrong kernel has no speed.
void CheckOrDie(const TestWeight& w, const std::vector<BF16>& x, const std::vector<float>& y) {
  std::vector<float> row(w.view.cols);
  for (size_t n = 0; n < w.view.rows; n += w.view.rows / 7) {
    WidenRow(w.view, n, row);
    const float want = ref::Dot({x.data(), w.view.cols}, row);
    float magnitude = 0;
    for (size_t k = 0; k < row.size(); ++k) magnitude += std::fabs(ToFloat(x[k]) * row[k]);
    if (std::fabs(want - y[n]) > static_cast<float>(row.size()) * 0x1p-24f * magnitude) {
      std::fprintf(stderr, "wrong result: row %zu is %g, not %g\n", n, double{y[n]}, double{want});
      std::exit(1);
    }
  }
}

// Codes, then scales, copy after copy, as files have them, in huge pages where the system has them.
// The memory is the process's to the end: it is the next shape's, too.
std::vector<WeightView> Copies(const TestWeight& weight, size_t count) {
  constexpr size_t kHugePageBytes = size_t{2} << 20;
  static constexpr size_t kArenaBytes = kColdBytes + (size_t{64} << 20);
  static uint8_t* const arena = [] {
    void* memory = std::aligned_alloc(kHugePageBytes, kArenaBytes);
    madvise(memory, kArenaBytes, MADV_HUGEPAGE);  // a wish
    return static_cast<uint8_t*>(memory);
  }();
  uint8_t* next = arena + 8;  // aligned to a float32, not to a line
  const size_t code_bytes = weight.view.rows * weight.view.row_bytes();
  std::vector<WeightView> copies(count, weight.view);
  for (WeightView& copy : copies) {
    copy.data = static_cast<uint8_t*>(std::memcpy(next, weight.view.data, code_bytes));
    next += code_bytes;
    if (weight.scales.empty()) continue;
    copy.scales =
        static_cast<uint8_t*>(std::memcpy(next, weight.scales.data(), weight.scales.size()));
    next += weight.scales.size();
  }
  return copies;
}

void BM_MatMul(benchmark::State& state, WeightKind kind, uint32_t n, uint32_t k) {
  const size_t m = static_cast<size_t>(state.range(0));
  const size_t threads = static_cast<size_t>(state.range(1));
  const MachineLimits& limits = Limits(threads);
  TestWeight first = RandomWeight(kind, n, k, 1);
  const size_t weight_bytes = n * first.view.row_bytes() + first.scales.size();
  const std::vector<WeightView> weights = Copies(first, m > 16 ? 1 : 1 + kColdBytes / weight_bytes);
  const std::vector<BF16> x = RandomVector<BF16>(m * k, 2);
  std::vector<float> y(m * n);
  ThreadPool pool(threads);
  const Context ctx{&pool, Path::kSimd, SupportedTargets().front()};
  const auto multiply = [&](const WeightView& w) {
    const MatMulJob<BF16> job{{x.data(), m, k}, nullptr, w, {y.data(), m, n}};
    MatMul(std::span<const MatMulJob<BF16>>(&job, 1), ctx);
  };
  multiply(first.view);
  CheckOrDie(first, x, y);
  size_t next = 0;
  for (auto _ : state) multiply(weights[next++ % weights.size()]);
  using benchmark::Counter;
  const double iterations = static_cast<double>(state.iterations());
  const double bytes = static_cast<double>(weight_bytes) * iterations;
  const double flop = 2.0 * static_cast<double>(m * n) * k * iterations;
  state.counters["GB/s"] = Counter(bytes / 1e9, Counter::kIsRate);
  state.counters["Gflop/s"] = Counter(flop / 1e9, Counter::kIsRate);
  state.counters["%read"] = Counter(100 * bytes / limits.read_bytes_per_s, Counter::kIsRate);
  state.counters["%bf16"] = Counter(100 * flop / limits.bf16_flop_per_s, Counter::kIsRate);
}

void Shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"m", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (int64_t threads : {1, 2}) {
    for (int64_t m : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 512}) b->Args({m, threads});
  }
}

BENCHMARK_CAPTURE(BM_MatMul, fp4_n2048_k4096, WeightKind::kFP4, 2048, 4096)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_MatMul, fp4_n4096_k2048, WeightKind::kFP4, 4096, 2048)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_MatMul, fp8_n1024_k4096, WeightKind::kFP8, 1024, 4096)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_MatMul, fp8_n32768_k1024, WeightKind::kFP8, 32768, 1024)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_MatMul, fp8_n4096_k8192, WeightKind::kFP8, 4096, 8192)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_MatMul, bf16_n1024_k4096, WeightKind::kBF16, 1024, 4096)->Apply(Shapes);

}  // namespace
}  // namespace cachalot::kernels
