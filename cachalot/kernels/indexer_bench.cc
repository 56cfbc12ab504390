// SPDX-License-Identifier: Apache-2.0
// The indexer of DeepSeek-V4 Flash: 64 heads of 128 dims, n entries, top 512.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cachalot/kernels/attention_test_util.h"
#include "cachalot/kernels/indexer.h"

namespace cachalot::kernels {
namespace {

constexpr uint32_t kHeads = 64;
constexpr uint32_t kKeyDim = 128;

void CheckOrDie(const IndexerArgs& args, const Context& ctx) {
  std::vector<float> want(args.queries[0].num_entries);
  std::vector<float> got(want.size());
  float* rows[] = {want.data(), got.data()};
  Context reference = ctx;
  reference.path = Path::kReference;
  IndexScores(args, std::span(rows).first(1), reference);
  IndexScores(args, std::span(rows).last(1), ctx);
  // |weights| and |q . k| sum to at most 64 and 128 here.
  const double bound = 2 * (kKeyDim + kHeads + 8) * 0x1p-24 * kHeads * kKeyDim;
  for (size_t j = 0; j < want.size(); ++j) {
    if (std::fabs(double{got[j]} - double{want[j]}) <= bound) continue;
    std::fprintf(stderr, "wrong score %zu\n", j);
    std::exit(1);
  }
}

void BM_Indexer(benchmark::State& state) {
  const uint32_t entries = static_cast<uint32_t>(state.range(0));
  ThreadPool pool(static_cast<size_t>(state.range(1)));
  const Context ctx{&pool, Path::kSimd, SupportedTargets().front()};
  const TestCache cache({.layout = {.head_dim = 64, .rope_dim = 0, .key_dim = kKeyDim},
                         .window_capacity = 1,
                         .num_entries = entries},
                        1);
  std::vector<float> q = TestVector(kHeads * kKeyDim, 2);
  RoundTripFp4({q.data(), kHeads, kKeyDim}, ctx);
  const std::vector<float> weights = TestVector(kHeads, 3);
  std::vector<uint64_t> scratch(SelectScratchWords(1, 512, pool.num_threads()));
  std::vector<uint32_t> selected(512);
  const IndexQuery query{.q = q.data(),
                         .weights = weights.data(),
                         .keys = cache.compressed(),
                         .num_entries = entries,
                         .selected = selected.data()};
  const IndexerArgs args{.queries = {&query, 1}, .heads = kHeads, .topk = 512, .scratch = scratch};
  SelectEntries(args, ctx);
  CheckOrDie(args, ctx);
  for (auto _ : state) SelectEntries(args, ctx);
  const double flop = 2.0 * kHeads * kKeyDim * entries;
  state.counters["Gflop/s"] = benchmark::Counter(
      flop / 1e9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(BM_Indexer)
    ->ArgNames({"entries", "threads"})
    ->ArgsProduct({{1024, 16384, 262144}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace cachalot::kernels
