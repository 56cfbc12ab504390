// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "cachalot/kernels/attention_ref.h"
#include "cachalot/kernels/attention_test_util.h"

namespace cachalot::kernels {
namespace {

struct Shape {
  uint32_t heads = 5;
  uint32_t head_dim = 128;
  uint32_t rope_dim = 64;
  uint32_t window = 16;
  uint32_t num_entries = 0;
  KvFormat format = KvFormat::kNative;
};

TestCache MakeCache(const Shape& s, uint32_t num_positions) {
  return TestCache({.layout = {.format = s.format, .head_dim = s.head_dim, .rope_dim = s.rope_dim},
                    .window_capacity = s.window + 16,
                    .num_positions = num_positions,
                    .num_entries = s.num_entries},
                   11);
}

class AttentionTest : public testing::TestWithParam<Target> {};

// Consecutive tokens of one sequence, the last at `last`.
struct Call {
  Call(const Shape& s, const TestCache& cache, uint32_t first, uint32_t count,
       const std::vector<uint32_t>* selected = nullptr)
      : shape(s), sink(TestVector(s.heads, 3)) {
    const size_t size = size_t{s.heads} * s.head_dim;
    for (uint32_t i = 0; i < count; ++i) {
      const std::vector<float> one = TestVector(size, 100 + first + i);
      q.insert(q.end(), one.begin(), one.end());
    }
    for (float& x : q) x *= 4.0f;
    out.assign(q.size(), NAN);
    for (uint32_t i = 0; i < count; ++i) {
      AttentionQuery query{.q = q.data() + i * size,
                           .out = out.data() + i * size,
                           .position = first + i,
                           .window = cache.window(),
                           .compressed = cache.compressed(),
                           .num_compressed = s.num_entries};
      if (selected != nullptr) {
        query.selected = selected->data();
        query.num_compressed = static_cast<uint32_t>(selected->size());
      }
      queries.push_back(query);
    }
  }
  AttentionArgs args() const {
    return {.queries = queries,
            .num_heads = shape.heads,
            .head_dim = shape.head_dim,
            .sliding_window = shape.window,
            .sink = sink,
            .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
  }
  Shape shape;
  std::vector<float> sink, q, out;
  std::vector<AttentionQuery> queries;
};

// The definition in float64 over the stored rows.
void ExpectNearExact(const Call& call, const Context& ctx) {
  const AttentionArgs args = call.args();
  const size_t d = args.head_dim;
  for (const AttentionQuery& query : call.queries) {
    std::vector<float> rows((args.sliding_window + query.num_compressed) * d);
    const uint32_t n = ref::GatherRows(query, args.sliding_window, rows.data());
    for (uint32_t h = 0; h < args.num_heads; ++h) {
      std::vector<double> s(n);
      double error = 0;
      for (uint32_t i = 0; i < n; ++i) {
        double magnitudes = 0;
        for (size_t k = 0; k < d; ++k) {
          const double product = double{query.q[h * d + k]} * double{rows[i * d + k]};
          s[i] += product * double{args.scale};
          magnitudes += std::fabs(product) * double{args.scale};
        }
        error = std::max(error, magnitudes * ScoreRounding(ctx.target, ctx.path, d));
      }
      const double top = *std::max_element(s.begin(), s.end());
      double sum = std::exp(double{args.sink[h]} - top);
      for (double& x : s) sum += x = std::exp(x - top);
      for (size_t k = 0; k < d; ++k) {
        double want = 0;
        double magnitude = 0;
        for (uint32_t i = 0; i < n; ++i) {
          want += s[i] * double{rows[i * d + k]} / sum;
          magnitude += s[i] * std::fabs(double{rows[i * d + k]}) / sum;
        }
        const double got = double{query.out[h * d + k]};
        ASSERT_LE(std::fabs(got - want), AttentionErrorBound(error, magnitude, n))
            << TargetName(ctx.target) << " t " << query.position << " entries "
            << query.num_compressed << " head " << h << " dim " << k << " got " << got << " want "
            << want;
      }
    }
  }
}

void RunAndCheck(const Shape& s, uint32_t first, uint32_t count, const Context& ctx,
                 const std::vector<uint32_t>* selected = nullptr) {
  const TestCache cache = MakeCache(s, first + count);
  Call call(s, cache, first, count, selected);
  Attention(call.args(), ctx);
  ExpectNearExact(call, ctx);
}

TEST_P(AttentionTest, IsNearTheExactSoftmaxForEveryPositionAndLength) {
  ThreadPool pool(2);
  const Context ctx{&pool, Path::kSimd, GetParam()};
  for (uint32_t t : {0u, 1u, 14u, 15u, 16u, 62u, 63u, 64u, 65u, 130u}) {
    RunAndCheck({}, t, 1, ctx);
  }
  for (uint32_t n : {1u, 2u, 31u, 32u, 33u, 63u, 64u, 65u, 129u, 1023u, 1024u, 1025u, 2100u}) {
    RunAndCheck({.heads = 3, .num_entries = n}, 40, 1, ctx);
  }
  for (uint32_t heads : {1u, 4u, 16u, 17u, 33u, 64u}) {
    RunAndCheck({.heads = heads, .num_entries = 5}, 70, 2, ctx);
  }
  RunAndCheck({.heads = 2, .head_dim = 512, .window = 128, .num_entries = 70}, 200, 2, ctx);
  RunAndCheck({.heads = 2, .head_dim = 192, .rope_dim = 64, .window = 100}, 260, 1, ctx);
  RunAndCheck({.heads = 2, .head_dim = 72, .rope_dim = 8, .window = 1, .num_entries = 3}, 9, 1,
              ctx);
}

TEST_P(AttentionTest, SelectedEntriesAreReadInListOrder) {
  ThreadPool pool(1);
  const Context ctx{&pool, Path::kSimd, GetParam()};
  std::vector<uint32_t> selected;
  for (uint32_t j = 3; j < 400; j += 1 + j % 5) selected.push_back(j);
  RunAndCheck({.num_entries = 400}, 50, 3, ctx, &selected);

  // The whole list is the same as none.
  const Shape s{.num_entries = 200};
  const TestCache cache = MakeCache(s, 60);
  std::vector<uint32_t> all(200);
  std::iota(all.begin(), all.end(), 0u);
  Call listed(s, cache, 50, 1, &all);
  Call dense(s, cache, 50, 1);
  Attention(listed.args(), ctx);
  Attention(dense.args(), ctx);
  EXPECT_EQ(listed.out, dense.out);
}

TEST_P(AttentionTest, BitsDependOnlyOnTheTokenAndTheRowsItSees) {
  const Shape s{.heads = 40, .window = 32, .num_entries = 1100};
  const TestCache cache = MakeCache(s, 101);
  for (Path path : {Path::kSimd, Path::kReference}) {
    ThreadPool one(1);
    Call want(s, cache, 90, 11);
    Attention(want.args(), {&one, path, GetParam()});
    const size_t size = size_t{s.heads} * s.head_dim;
    for (size_t threads = 1; threads <= 3; ++threads) {
      ThreadPool pool(threads);
      const Context ctx{&pool, path, GetParam()};
      Call all(s, cache, 90, 11);
      Attention(all.args(), ctx);
      EXPECT_EQ(all.out, want.out);
      for (uint32_t i : {0u, 5u, 10u}) {
        Call alone(s, cache, 90 + i, 1);
        Attention(alone.args(), ctx);
        EXPECT_EQ(std::memcmp(alone.out.data(), want.out.data() + i * size, size * sizeof(float)),
                  0)
            << TargetName(GetParam()) << " token " << i << " threads " << threads;
      }
    }
  }
}

TEST_P(AttentionTest, OutMayBeQ) {
  ThreadPool pool(2);
  const Context ctx{&pool, Path::kSimd, GetParam()};
  const Shape s{.heads = 33, .num_entries = 70};
  const TestCache cache = MakeCache(s, 40);
  Call apart(s, cache, 39, 1);
  Attention(apart.args(), ctx);
  Call in_place(s, cache, 39, 1);
  in_place.queries[0].out = in_place.q.data();
  Attention(in_place.args(), ctx);
  EXPECT_EQ(in_place.q, apart.out);
}

// Rows out of sight are 0xFF bytes, NaN in every format: nothing of them may come through.
TEST_P(AttentionTest, UnwrittenRowsDoNotMatter) {
  ThreadPool pool(1);
  const Context ctx{&pool, Path::kSimd, GetParam()};
  const Shape s{.num_entries = 33};
  const TestCache cache = MakeCache(s, 3);
  Call call(s, cache, 2, 1);
  Attention(call.args(), ctx);
  for (float x : call.out) ASSERT_TRUE(std::isfinite(x));
}

TEST_P(AttentionTest, TheSinkOnlyShrinksTheOutput) {
  ThreadPool pool(1);
  const Context ctx{&pool, Path::kSimd, GetParam()};
  const Shape s{.heads = 2};
  const TestCache cache = MakeCache(s, 20);
  Call call(s, cache, 19, 1);
  call.sink = {-INFINITY, 1000.0f};
  Attention(call.args(), ctx);
  ExpectNearExact(call, ctx);
  for (size_t k = s.head_dim; k < 2 * s.head_dim; ++k) EXPECT_EQ(call.out[k], 0.0f);
}

TEST_P(AttentionTest, HugeScoresDoNotOverflow) {
  ThreadPool pool(1);
  const Context ctx{&pool, Path::kSimd, GetParam()};
  const Shape s{.heads = 2, .num_entries = 1500};
  const TestCache cache = MakeCache(s, 20);
  Call call(s, cache, 19, 1);
  for (float& x : call.q) x *= 1e6f;
  Attention(call.args(), ctx);
  for (float x : call.out) ASSERT_LE(std::fabs(x), 1.07f);  // rows lie in [-1, 1], FP8 adds 1/16
}

TEST_P(AttentionTest, TheFloat32FormatTakesTheReference) {
  ThreadPool pool(2);
  RunAndCheck({.num_entries = 100, .format = KvFormat::kF32}, 30, 3,
              {&pool, Path::kReference, GetParam()});
  const Shape s{.num_entries = 100, .format = KvFormat::kF32};
  const TestCache cache = MakeCache(s, 31);
  Call simd(s, cache, 30, 1);
  Call reference(s, cache, 30, 1);
  Attention(simd.args(), {&pool, Path::kSimd, GetParam()});
  Attention(reference.args(), {&pool, Path::kReference, GetParam()});
  EXPECT_EQ(simd.out, reference.out);
}

INSTANTIATE_TEST_SUITE_P(Targets, AttentionTest, testing::ValuesIn(SupportedTargets()),
                         [](const auto& target) {
                           std::string name(TargetName(target.param));
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace cachalot::kernels
