// SPDX-License-Identifier: Apache-2.0
// Attention of DeepSeek-V4 Flash: 64 heads of 512 dims, window 128, n compressed entries, T tokens.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cachalot/kernels/attention_test_util.h"

namespace cachalot::kernels {
namespace {

constexpr uint32_t kHeads = 64;
constexpr uint32_t kHeadDim = 512;
constexpr uint32_t kWindow = 128;

// Against the reference within twice the bound of a random score: |q k| sums to d / 4 here.
void CheckOrDie(const AttentionArgs& args, const Context& ctx, const std::vector<float>& out) {
  std::vector<float> want(size_t{kHeads} * kHeadDim);
  AttentionQuery query = args.queries[0];
  query.out = want.data();
  AttentionArgs one = args;
  one.queries = {&query, 1};
  Context reference = ctx;
  reference.path = Path::kReference;
  Attention(one, reference);
  const double score_error =
      kHeadDim * double{args.scale} * ScoreRounding(ctx.target, ctx.path, kHeadDim);
  const double bound = 2 * AttentionErrorBound(score_error, 1.0, query.num_compressed + kWindow);
  for (size_t i = 0; i < want.size(); ++i) {
    if (!(std::fabs(double{out[i]} - double{want[i]}) <= bound)) {
      std::fprintf(stderr, "wrong result: %zu is %g, not %g\n", i, double{out[i]}, double{want[i]});
      std::exit(1);
    }
  }
}

void BM_Attention(benchmark::State& state) {
  const size_t tokens = static_cast<size_t>(state.range(0));
  const uint32_t entries = static_cast<uint32_t>(state.range(1));
  ThreadPool pool(static_cast<size_t>(state.range(2)));
  const Context ctx{&pool, Path::kSimd, SupportedTargets().front()};
  const TestCache cache({.layout = {.head_dim = kHeadDim, .rope_dim = 64},
                         .window_capacity = kWindow + 16,
                         .num_positions = 512,
                         .num_entries = entries},
                        1);
  const size_t size = size_t{kHeads} * kHeadDim;
  const std::vector<float> q = TestVector(tokens * size, 2);
  const std::vector<float> sink = TestVector(kHeads, 3);
  std::vector<float> out(q.size());
  std::vector<AttentionQuery> queries;
  for (size_t i = 0; i < tokens; ++i) {
    queries.push_back({.q = q.data() + i * size,
                       .out = out.data() + i * size,
                       .position = static_cast<uint32_t>(512 - tokens + i),
                       .window = cache.window(),
                       .compressed = cache.compressed(),
                       .num_compressed = entries});
  }
  const AttentionArgs args{.queries = queries,
                           .num_heads = kHeads,
                           .head_dim = kHeadDim,
                           .sliding_window = kWindow,
                           .sink = sink,
                           .scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim))};
  Attention(args, ctx);
  CheckOrDie(args, ctx, out);
  for (auto _ : state) Attention(args, ctx);
  const double flop = 4.0 * static_cast<double>(tokens * size) * (entries + kWindow);
  state.counters["Gflop/s"] = benchmark::Counter(
      flop / 1e9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void Shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"tokens", "entries", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (int64_t threads : {1, 2}) {
    for (int64_t tokens : {1, 16}) {
      for (int64_t entries : {4, 128, 512}) b->Args({tokens, entries, threads});
    }
  }
}
BENCHMARK(BM_Attention)->Apply(Shapes);

}  // namespace
}  // namespace cachalot::kernels
