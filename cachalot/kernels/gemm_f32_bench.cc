// SPDX-License-Identifier: Apache-2.0
// The three products of a Newton-Schulz step, one thread; flop counted as if nothing was symmetric.
#include <benchmark/benchmark.h>

#include "cachalot/base/rng.h"
#include "cachalot/kernels/gemm_f32.h"
#include "cachalot/threading/aligned_buffer.h"

namespace cachalot::kernels {
namespace {

void BM_NewtonSchulzStep(benchmark::State& state) {
  const auto n = static_cast<size_t>(state.range(0));
  const auto m = static_cast<size_t>(state.range(1));
  const Target target = SupportedTargets().front();
  AlignedBuffer<float> x(n * m), g(n * n), p(n * n);
  for (size_t i = 0; i < n * m; ++i) {
    x[i] = static_cast<float>(UniformOpen(CounterRandom(1, i, 0)) - 0.5) * 0.01f;
  }
  const MatView<float> xv(x.data(), n, m), gv(g.data(), n, n), pv(p.data(), n, n);
  const GemmF32Args gram{xv, xv, GemmB::kTransposed, gv, 1.0f, 0.0f, {}, true};
  const GemmF32Args poly{gv, gv, GemmB::kPlain, pv, 0.5f, -1.5f, gv, true};
  const GemmF32Args apply{pv, xv, GemmB::kPlain, xv, 1.0f, 1.0f, xv};
  AlignedBuffer<float> scratch(std::max(
      {GemmF32ScratchFloats(gram), GemmF32ScratchFloats(poly), GemmF32ScratchFloats(apply)}));
  for (auto _ : state) {
    GemmF32Serial(gram, scratch.data(), target);
    GemmF32Serial(poly, scratch.data(), target);
    GemmF32Serial(apply, scratch.data(), target);
    benchmark::ClobberMemory();
  }
  const double flop = 2.0 * static_cast<double>(n * n) * static_cast<double>(n + 2 * m);
  state.counters["flop/s"] =
      benchmark::Counter(flop, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_NewtonSchulzStep)
    ->ArgNames({"n", "m"})
    ->Args({64, 128})
    ->Args({128, 256})
    ->Args({256, 512})
    ->Args({512, 1024});

}  // namespace
}  // namespace cachalot::kernels
