// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/top_entries.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cachalot/base/rng.h"

namespace cachalot::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(TopEntries, WordsOrderAsScoresThenLowerIndex) {
  const std::vector<float> ascending = {-kInf, -3.0f, -0x1p-140f, 0.0f, 0x1p-140f, 2.0f, kInf};
  for (size_t i = 1; i < ascending.size(); ++i) {
    EXPECT_LT(CandidateWord(ascending[i - 1], 0), CandidateWord(ascending[i], 9)) << i;
  }
  EXPECT_GT(CandidateWord(1.0f, 3), CandidateWord(1.0f, 4));
  EXPECT_EQ(CandidateWord(-0.0f, 5), CandidateWord(0.0f, 5));
  EXPECT_EQ(CandidateWord(NAN, 5), CandidateWord(-kInf, 5));
  EXPECT_EQ(CandidateEntry(CandidateWord(-1.5f, 123456)), 123456u);
}

// The best by a stable sort of everything.
std::vector<uint32_t> Sorted(const std::vector<float>& scores, uint32_t topk) {
  std::vector<uint32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::stable_sort(order, [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
  order.resize(std::min<size_t>(topk, order.size()));
  std::ranges::sort(order);
  return order;
}

// In stretches of `stretch` entries, tiles of `tile`, the last stretch first.
std::vector<uint32_t> Streamed(const std::vector<float>& scores, uint32_t topk, size_t stretch,
                               size_t tile) {
  uint64_t floor = 0;
  std::vector<uint64_t> spare(2 * size_t{topk});
  std::vector<std::vector<uint64_t>> buffers;
  std::vector<uint64_t> all;
  for (size_t begin = (scores.size() - 1) / stretch * stretch;; begin -= stretch) {
    buffers.emplace_back(2 * size_t{topk});
    TopEntries top(topk, buffers.back().data(), spare.data(), &floor);
    const size_t end = std::min(begin + stretch, scores.size());
    for (size_t i = begin; i < end; i += tile) {
      top.Add(i, std::span(scores).subspan(i, std::min(tile, end - i)));
    }
    all.insert(all.begin(), top.candidates().begin(), top.candidates().end());
    if (begin == 0) break;
  }
  std::vector<uint32_t> selected(std::min<size_t>(topk, scores.size()));
  std::vector<uint64_t> more(all.size());
  SelectLargest(all, topk, more, selected.data());
  return selected;
}

TEST(TopEntries, IsTheSortedSetHoweverTheEntriesAreCut) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    std::vector<float> scores(1 + CounterRandom(seed, 0, 0) % 3000);
    for (size_t i = 0; i < scores.size(); ++i) {
      const double u = UniformOpen(CounterRandom(seed, 1, i));
      // Every second seed has few distinct scores, so that ties are cut.
      scores[i] = static_cast<float>(seed % 2 == 0 ? u - 0.5 : std::floor(4 * u));
    }
    const auto topk = static_cast<uint32_t>(1 + CounterRandom(seed, 2, 0) % 300);
    const std::vector<uint32_t> want = Sorted(scores, topk);
    for (size_t stretch : {size_t{64}, size_t{512}, scores.size()}) {
      EXPECT_EQ(Streamed(scores, topk, stretch, 64), want) << "seed " << seed << " top " << topk;
    }
  }
}

TEST(TopEntries, AscendingAndDescendingScores) {
  std::vector<float> scores(2000);
  std::iota(scores.begin(), scores.end(), 0.0f);
  EXPECT_EQ(Streamed(scores, 100, 640, 64), Sorted(scores, 100));
  std::ranges::reverse(scores);
  EXPECT_EQ(Streamed(scores, 100, 640, 64), Sorted(scores, 100));
}

}  // namespace
}  // namespace cachalot::kernels
