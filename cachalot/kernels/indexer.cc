// SPDX-License-Identifier: Apache-2.0
// Cuts the entries of each query into stretches, runs the code of ctx.target on them, keeps the
// best of each stretch and then of all.
#include "cachalot/kernels/indexer.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "cachalot/base/check.h"
#include "cachalot/kernels/indexer_ref.h"
#include "cachalot/kernels/indexer_tile.h"
#include "cachalot/kernels/top_entries.h"

namespace cachalot::kernels {
namespace {

// Stretches a thread, where few queries must feed all threads: what is left over at the end is an
// eighth of a thread's share.
constexpr size_t kStretchesPerThread = 8;
// At 64 heads of 128 dims about 20 us as integers; less would not pay for converting the query.
constexpr size_t kLeastStretch = 16 * kTileRows;

size_t MaxStretches(size_t num_queries, size_t num_threads) {
  return num_queries + kStretchesPerThread * num_threads;
}

// Entries of a stretch of this query, a multiple of the tile. The stretches of a call are at most
// MaxStretches, and no bit depends on them: the best of the best are the best.
size_t StretchEntries(const IndexQuery& query, size_t num_queries, size_t num_threads) {
  const size_t wanted = std::max<size_t>(1, kStretchesPerThread * num_threads / num_queries);
  const size_t entries = (query.num_entries + wanted - 1) / wanted;
  return RoundUp(std::max(entries, kLeastStretch), kTileRows);
}

size_t NumStretches(const IndexQuery& query, size_t stretch_entries) {
  return (query.num_entries + stretch_entries - 1) / stretch_entries;
}

// Scores entries of any query with the code of a context.
class Scorer {
 public:
  Scorer(const IndexerArgs& args, const Context& ctx) : heads_(args.heads) {
    bool native = true;
    for (const IndexQuery& query : args.queries) {
      const KvLayout& layout = query.keys.layout;
      CACHALOT_CHECK(layout.key_dim > 0 && layout.key_dim <= kMaxKeyDim);
      scratch_bytes_ = std::max(scratch_bytes_, IndexScratchBytes(layout.key_dim, args.heads));
      native = native && layout.format == KvFormat::kNative;
    }
    if (ctx.path == Path::kReference || !native) return;
    floats_ = HighwayIndexScores(ctx.target);
    integers_ = HasX86IndexScores(ctx.target);
    score_bf16_ = HasBf16Dot(ctx.target) ? X86ScoreBF16() : nullptr;
  }

  size_t scratch_bytes() const { return RoundUp(scratch_bytes_, kCacheLineBytes); }

  void Run(const IndexQuery& query, size_t begin, size_t end, uint8_t* scratch,
           ScoreSink sink) const {
    if (floats_ == nullptr) return RunReference(query, begin, end, sink);
    const IndexTask task{&query, heads_, begin, end, scratch, sink};
    if (integers_) return X86IndexScores(task, floats_, score_bf16_);
    floats_(task, score_bf16_);
  }

 private:
  void RunReference(const IndexQuery& query, size_t begin, size_t end, ScoreSink sink) const {
    std::array<float, kTileRows> scores;
    for (; begin < end; begin += kTileRows) {
      const size_t count = std::min<size_t>(kTileRows, end - begin);
      ref::ScoreEntries(query, heads_, begin, begin + count, scores.data());
      sink(begin, {scores.data(), count});
    }
  }

  uint32_t heads_;
  size_t scratch_bytes_ = 0;
  IndexFn* floats_ = nullptr;
  bool integers_ = false;
  ScoreFn* score_bf16_ = nullptr;
};

// How a call's scratch is used: a floor a query, then per stretch a count and its candidates.
class Stretches {
 public:
  Stretches(const IndexerArgs& args, const Context& ctx)
      : args_(args),
        num_threads_(ctx.pool->num_threads()),
        words_each_(1 + 2 * size_t{args.topk}),
        counts_(args.scratch.data() + args.queries.size()) {
    std::ranges::fill(args.scratch.first(args.queries.size()), uint64_t{0});
    for (const IndexQuery& query : args.queries) num_ += Count(query);
    CACHALOT_CHECK(num_ <= MaxStretches(args.queries.size(), num_threads_));
  }

  size_t num() const { return num_; }
  // Of a query; none where everything is selected.
  size_t Count(const IndexQuery& query) const {
    return query.num_entries > args_.topk ? NumStretches(query, Entries(query)) : 0;
  }
  size_t Entries(const IndexQuery& query) const {
    return StretchEntries(query, args_.queries.size(), num_threads_);
  }
  uint64_t* Floor(size_t query) const { return args_.scratch.data() + query; }
  uint64_t& NumCandidates(size_t stretch) const { return counts_[stretch * words_each_]; }
  uint64_t* Candidates(size_t stretch) const { return &NumCandidates(stretch) + 1; }
  // The first stretch of a query.
  size_t First(size_t query) const {
    size_t first = 0;
    for (size_t i = 0; i < query; ++i) first += Count(args_.queries[i]);
    return first;
  }

 private:
  const IndexerArgs& args_;
  size_t num_threads_;
  size_t words_each_;
  uint64_t* counts_;
  size_t num_ = 0;
};

void ScoreStretches(const IndexerArgs& args, const Stretches& stretches, const Context& ctx) {
  const Scorer scorer(args, ctx);
  const size_t spare_bytes = 2 * size_t{args.topk} * sizeof(uint64_t);
  ctx.pool->ParallelFor(stretches.num(), [&](size_t task, size_t worker) {
    size_t q = 0;
    size_t i = task;
    for (; i >= stretches.Count(args.queries[q]); ++q) i -= stretches.Count(args.queries[q]);
    const IndexQuery& query = args.queries[q];
    const size_t entries = stretches.Entries(query);
    uint8_t* scratch = ctx.pool->WorkerScratch(worker, scorer.scratch_bytes() + spare_bytes);
    auto* spare = reinterpret_cast<uint64_t*>(scratch + scorer.scratch_bytes());
    TopEntries top(args.topk, stretches.Candidates(task), spare, stretches.Floor(q));
    scorer.Run(query, i * entries, std::min<size_t>((i + 1) * entries, query.num_entries), scratch,
               [&](size_t begin, std::span<const float> scores) { top.Add(begin, scores); });
    stretches.NumCandidates(task) = top.candidates().size();
  });
}

// The best of a query's stretches, which lie in ascending order of entries.
void SelectFromStretches(const IndexerArgs& args, const Stretches& stretches, size_t q,
                         const Context& ctx, size_t worker) {
  const IndexQuery& query = args.queries[q];
  const size_t first = stretches.First(q);
  const size_t count = stretches.Count(query);
  // The most there can be, so that the scratch does not grow by chance.
  const size_t most = count * 2 * args.topk;
  auto* all =
      reinterpret_cast<uint64_t*>(ctx.pool->WorkerScratch(worker, 2 * most * sizeof(uint64_t)));
  uint64_t* end = all;
  for (size_t i = first; i < first + count; ++i) {
    end = std::copy_n(stretches.Candidates(i), stretches.NumCandidates(i), end);
  }
  SelectLargest({all, end}, args.topk, {all + most, most}, query.selected);
}

}  // namespace

size_t SelectScratchWords(size_t max_queries, uint32_t topk, size_t num_threads) {
  return max_queries + MaxStretches(max_queries, num_threads) * (1 + 2 * size_t{topk});
}

void SelectEntries(const IndexerArgs& args, const Context& ctx) {
  if (args.queries.empty()) return;
  CACHALOT_CHECK(args.topk > 0);
  CACHALOT_CHECK(args.scratch.size() >=
                 SelectScratchWords(args.queries.size(), args.topk, ctx.pool->num_threads()));
  const Stretches stretches(args, ctx);
  ScoreStretches(args, stretches, ctx);
  ctx.pool->ParallelFor(args.queries.size(), [&](size_t q, size_t worker) {
    const IndexQuery& query = args.queries[q];
    if (query.num_entries > args.topk) {
      SelectFromStretches(args, stretches, q, ctx, worker);
    } else {
      std::iota(query.selected, query.selected + query.num_entries, 0u);
    }
  });
}

void IndexScores(const IndexerArgs& args, std::span<float* const> scores, const Context& ctx) {
  CACHALOT_CHECK(scores.size() == args.queries.size());
  const Scorer scorer(args, ctx);
  ctx.pool->ParallelFor(args.queries.size(), [&](size_t q, size_t worker) {
    const IndexQuery& query = args.queries[q];
    scorer.Run(query, 0, query.num_entries, ctx.pool->WorkerScratch(worker, scorer.scratch_bytes()),
               [&](size_t begin, std::span<const float> tile) {
                 std::ranges::copy(tile, scores[q] + begin);
               });
  });
}

}  // namespace cachalot::kernels
