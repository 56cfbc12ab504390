// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/indexer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "cachalot/kernels/attention_test_util.h"

namespace cachalot::kernels {
namespace {

constexpr uint32_t kKeyDim = 128;

TestCache MakeKeys(uint32_t num_entries, uint32_t key_dim = kKeyDim,
                   KvFormat format = KvFormat::kNative) {
  return TestCache({.layout = {.format = format, .head_dim = 64, .rope_dim = 0, .key_dim = key_dim},
                    .window_capacity = 1,
                    .num_entries = num_entries},
                   5);
}

// Index queries as the model makes them: on the FP4 grid.
std::vector<float> MakeQuery(uint32_t heads, uint32_t key_dim, uint64_t seed, ThreadPool& pool) {
  std::vector<float> q = TestVector(size_t{heads} * key_dim, seed);
  RoundTripFp4({q.data(), heads, key_dim}, {&pool, Path::kReference, Target::kScalar});
  return q;
}

struct Selection {
  std::vector<float> scores;
  std::vector<uint32_t> selected;
};

void SelectQueries(std::span<const IndexQuery> queries, uint32_t heads, uint32_t topk,
                   const Context& ctx) {
  std::vector<uint64_t> scratch(SelectScratchWords(queries.size(), topk, ctx.pool->num_threads()));
  SelectEntries({.queries = queries, .heads = heads, .topk = topk, .scratch = scratch}, ctx);
}

Selection Select(const TestCache& cache, uint32_t num_entries, uint32_t heads, uint32_t topk,
                 uint64_t seed, const Context& ctx, uint32_t key_dim = kKeyDim) {
  const std::vector<float> q = MakeQuery(heads, key_dim, seed, *ctx.pool);
  const std::vector<float> weights = TestVector(heads, seed + 1);
  Selection s{std::vector<float>(num_entries, NAN), std::vector<uint32_t>(topk, ~0u)};
  const IndexQuery query{.q = q.data(),
                         .weights = weights.data(),
                         .keys = cache.compressed(),
                         .num_entries = num_entries,
                         .selected = s.selected.data()};
  SelectQueries({&query, 1}, heads, topk, ctx);
  float* scores = s.scores.data();
  IndexScores({.queries = {&query, 1}, .heads = heads}, {&scores, 1}, ctx);
  return s;
}

class IndexerTest : public testing::TestWithParam<Target> {};

void ExpectNearExact(const IndexQuery& query, uint32_t heads, const Context& ctx) {
  const uint32_t num_entries = query.num_entries;
  const uint32_t key_dim = query.keys.layout.key_dim;
  const float* q = query.q;
  std::vector<float> scores(num_entries, NAN);
  float* out = scores.data();
  IndexScores({.queries = {&query, 1}, .heads = heads}, {&out, 1}, ctx);
  std::vector<float> key(key_dim);
  for (uint32_t j = 0; j < num_entries; ++j) {
    LoadIndexKey(query.keys.Block(j / query.keys.rows_per_block), j % query.keys.rows_per_block,
                 key);
    double want = 0;
    double magnitudes = 0;
    for (uint32_t h = 0; h < heads; ++h) {
      double dot = 0;
      double sum = 0;
      for (uint32_t k = 0; k < key_dim; ++k) {
        dot += double{q[h * key_dim + k]} * double{key[k]};
        sum += std::fabs(double{q[h * key_dim + k]} * double{key[k]});
      }
      want += double{query.weights[h]} * std::max(dot, 0.0);
      magnitudes += std::fabs(double{query.weights[h]}) * sum;
    }
    // Every product, sum and head rounds once.
    const double bound = (key_dim + heads + 8) * 0x1p-24 * magnitudes;
    ASSERT_LE(std::fabs(double{scores[j]} - want), bound)
        << TargetName(ctx.target) << " entry " << j << " of " << num_entries;
  }
}

void ExpectNearExact(uint32_t num_entries, uint32_t heads, uint32_t key_dim, KvFormat format,
                     const Context& ctx) {
  const TestCache cache = MakeKeys(num_entries, key_dim, format);
  const std::vector<float> q = MakeQuery(heads, key_dim, 7, *ctx.pool);
  const std::vector<float> weights = TestVector(heads, 8);
  ExpectNearExact({.q = q.data(),
                   .weights = weights.data(),
                   .keys = cache.compressed(),
                   .num_entries = num_entries},
                  heads, ctx);
}

TEST_P(IndexerTest, ScoresAreNearTheExactOnes) {
  ThreadPool pool(2);
  for (Path path : {Path::kReference, Path::kSimd}) {
    const Context ctx{&pool, path, GetParam()};
    for (uint32_t n : {1u, 2u, 31u, 32u, 33u, 63u, 64u, 65u, 255u, 256u, 257u, 600u}) {
      ExpectNearExact(n, 6, kKeyDim, KvFormat::kNative, ctx);
    }
    for (uint32_t heads : {1u, 2u, 3u, 4u, 5u, 17u, 64u, 70u}) {
      ExpectNearExact(70, heads, kKeyDim, KvFormat::kNative, ctx);
    }
    for (uint32_t key_dim : {32u, 64u, 96u, 160u, 256u}) {
      ExpectNearExact(70, 5, key_dim, KvFormat::kNative, ctx);
    }
    ExpectNearExact(70, 5, kKeyDim, KvFormat::kF32, ctx);
  }
}

TEST_P(IndexerTest, SelectsTheLargestInAscendingOrder) {
  ThreadPool pool(2);
  const Context ctx{&pool, Path::kSimd, GetParam()};
  const TestCache cache = MakeKeys(700);
  for (uint32_t n : {1u, 15u, 16u, 17u, 64u, 300u, 700u}) {
    constexpr uint32_t kTopk = 16;
    const Selection s = Select(cache, n, 8, kTopk, 9, ctx);
    const uint32_t count = std::min(n, kTopk);
    std::vector<uint32_t> want(n);
    std::iota(want.begin(), want.end(), 0u);
    if (n > kTopk) {
      std::ranges::stable_sort(want,
                               [&](uint32_t a, uint32_t b) { return s.scores[a] > s.scores[b]; });
      want.resize(count);
      std::ranges::sort(want);
    }
    EXPECT_TRUE(std::equal(want.begin(), want.end(), s.selected.begin())) << n;
    for (uint32_t i = count; i < kTopk; ++i) EXPECT_EQ(s.selected[i], ~0u);
  }
}

TEST_P(IndexerTest, TiesGoToTheLowerIndex) {
  ThreadPool pool(1);
  const Context ctx{&pool, Path::kSimd, GetParam()};
  const TestCache cache = MakeKeys(200);
  const std::vector<float> q(2 * kKeyDim, 0.0f);  // all scores are 0
  const std::vector<float> weights = {1.0f, -1.0f};
  std::vector<uint32_t> selected(5);
  const IndexQuery query{.q = q.data(),
                         .weights = weights.data(),
                         .keys = cache.compressed(),
                         .num_entries = 200,
                         .selected = selected.data()};
  SelectQueries({&query, 1}, 2, 5, ctx);
  EXPECT_EQ(selected, (std::vector<uint32_t>{0, 1, 2, 3, 4}));
}

TEST_P(IndexerTest, NotANumberIsTheSmallest) {
  ThreadPool pool(1);
  const Context ctx{&pool, Path::kSimd, GetParam()};
  const uint32_t n = 100;
  KvLayout layout{.head_dim = 64, .rope_dim = 0, .key_dim = kKeyDim};
  std::vector<uint8_t> slab(n * layout.row_bytes());
  const KvRows rows(layout, slab.data(), n);
  const std::vector<float> key(kKeyDim, 1.0f);
  for (uint32_t j = 0; j < n; ++j) {
    StoreIndexKey(key, rows, j);
    if (j < 90) rows.KeyScales(j)[0] = 255;
  }
  const BlockId block{0};
  const std::vector<float> q(kKeyDim, 1.0f);
  const float weight = -1.0f;
  std::vector<uint32_t> selected(10);
  const IndexQuery query{.q = q.data(),
                         .weights = &weight,
                         .keys = {layout, slab.data(), slab.size(), n, {&block, 1}},
                         .num_entries = n,
                         .selected = selected.data()};
  SelectQueries({&query, 1}, 1, 10, ctx);
  for (uint32_t i = 0; i < 10; ++i) EXPECT_EQ(selected[i], 90 + i);
}

TEST_P(IndexerTest, BitsDependOnlyOnTheQueryAndItsKeys) {
  const TestCache cache = MakeKeys(900);
  for (Path path : {Path::kSimd, Path::kReference}) {
    ThreadPool one(1);
    const Selection want = Select(cache, 900, 9, 40, 3, {&one, path, GetParam()});
    for (size_t threads = 2; threads <= 3; ++threads) {
      ThreadPool pool(threads);
      const Context ctx{&pool, path, GetParam()};
      const Selection got = Select(cache, 900, 9, 40, 3, ctx);
      EXPECT_EQ(got.scores, want.scores);
      EXPECT_EQ(got.selected, want.selected);
      // Fewer entries in sight, and other queries in the call.
      const std::vector<float> q = MakeQuery(9, kKeyDim, 3, pool);
      const std::vector<float> weights = TestVector(9, 4);
      std::vector<IndexQuery> queries;
      std::vector<std::vector<float>> scores(5, std::vector<float>(900));
      std::vector<float*> rows;
      std::vector<std::vector<uint32_t>> selected(5, std::vector<uint32_t>(40));
      for (uint32_t i = 0; i < 5; ++i) {
        queries.push_back({.q = q.data(),
                           .weights = weights.data(),
                           .keys = cache.compressed(),
                           .num_entries = 900 - 217 * i,
                           .selected = selected[i].data()});
        rows.push_back(scores[i].data());
      }
      SelectQueries(queries, 9, 40, ctx);
      EXPECT_EQ(selected[0], want.selected);
      IndexScores({.queries = queries, .heads = 9}, rows, ctx);
      for (uint32_t i = 0; i < 4; ++i) {
        EXPECT_EQ(std::memcmp(scores[i].data(), want.scores.data(), (900 - 217 * i) * 4), 0) << i;
      }
    }
  }
}

// Keys and queries that the integer products cannot hold, and where they can no longer.
TEST_P(IndexerTest, ScalesFarApartAreNearTheExactOnes) {
  ThreadPool pool(1);
  const Context ctx{&pool, Path::kSimd, GetParam()};
  constexpr uint32_t kEntries = 200;
  constexpr uint32_t kHeads = 20;
  KvLayout layout{.head_dim = 64, .rope_dim = 0, .key_dim = kKeyDim};
  for (int spread = 0; spread <= 12; ++spread) {
    std::vector<uint8_t> slab(kEntries * layout.row_bytes());
    const KvRows rows(layout, slab.data(), kEntries);
    std::vector<float> key(kKeyDim);
    // Blocks of 32 dims are up to 2^spread apart: for keys in every third tile, for all queries.
    const auto scaled = [&](std::vector<float>& v, uint64_t seed, bool apart) {
      for (uint32_t k = 0; k < v.size(); ++k) {
        v[k] = TestFloat(seed, spread, k);
        if (apart && k / 32 % 2 == 1) v[k] = std::ldexp(v[k], -spread);
      }
    };
    for (uint32_t j = 0; j < kEntries; ++j) {
      scaled(key, 100 + j, j / 64 % 3 == 1);
      StoreIndexKey(key, rows, j);
    }
    std::vector<float> q(kHeads * kKeyDim);
    scaled(q, 1, spread % 2 == 0);
    RoundTripFp4({q.data(), kHeads, kKeyDim}, {&pool, Path::kReference, Target::kScalar});
    const std::vector<float> weights = TestVector(kHeads, 2);
    const BlockId block{0};
    const IndexQuery query{.q = q.data(),
                           .weights = weights.data(),
                           .keys = {layout, slab.data(), slab.size(), kEntries, {&block, 1}},
                           .num_entries = kEntries};
    ExpectNearExact(query, kHeads, ctx);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, IndexerTest, testing::ValuesIn(SupportedTargets()),
                         [](const auto& target) {
                           std::string name(TargetName(target.param));
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace cachalot::kernels
