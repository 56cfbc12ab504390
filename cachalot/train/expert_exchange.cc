// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/expert_exchange.h"

#include <algorithm>

#include "cachalot/base/check.h"

namespace cachalot::train {

ExpertGroups GroupByExpert(MatView<const uint32_t> ids, size_t num_experts) {
  ExpertGroups groups;
  groups.first_row.assign(num_experts + 1, 0);
  groups.row_token.resize(ids.rows * ids.cols);
  groups.slot_row.resize(ids.rows * ids.cols);
  for (size_t t = 0; t < ids.rows; ++t) {
    for (const uint32_t e : ids.Row(t)) ++groups.first_row[e + 1];
  }
  for (size_t e = 0; e < num_experts; ++e) groups.first_row[e + 1] += groups.first_row[e];
  std::vector<size_t> next(groups.first_row.begin(), groups.first_row.end() - 1);
  for (size_t t = 0; t < ids.rows; ++t) {
    for (size_t a = 0; a < ids.cols; ++a) {
      const size_t row = next[ids.Row(t)[a]]++;
      groups.row_token[row] = static_cast<uint32_t>(t);
      groups.slot_row[t * ids.cols + a] = static_cast<uint32_t>(row);
    }
  }
  return groups;
}

ExpertArrivals LocalArrivals(const ExpertGroups& groups) {
  ExpertArrivals arrivals{.num_rows = groups.row_token.size()};
  for (size_t e = 0; e + 1 < groups.first_row.size(); ++e) {
    const size_t first = groups.first_row[e], count = groups.first_row[e + 1] - first;
    if (count > 0) arrivals.runs.push_back({.expert = e, .first = first, .count = count});
  }
  return arrivals;
}

// The smallest e with ExpertRank(e) >= rank.
size_t ExpertExchange::FirstExpert(uint32_t rank) const {
  return (rank * num_experts_ + comm_.size() - 1) / comm_.size();
}

ExpertArrivals ExpertExchange::Announce(const ExpertGroups& groups) {
  const uint32_t ranks = comm_.size(), me = comm_.rank();
  std::vector<uint32_t> counts;  // of this rank's rows, by expert
  for (size_t e = 0; e < num_experts_; ++e) {
    counts.push_back(static_cast<uint32_t>(groups.first_row[e + 1] - groups.first_row[e]));
  }
  const size_t first = FirstExpert(me), mine = FirstExpert(me + 1) - first;
  std::vector<uint32_t> arriving(ranks * mine);  // by rank, then by expert here
  std::vector<std::span<const uint32_t>> send;
  std::vector<std::span<uint32_t>> receive;
  for (uint32_t r = 0; r < ranks; ++r) {
    send.emplace_back(counts.data() + FirstExpert(r), FirstExpert(r + 1) - FirstExpert(r));
    receive.emplace_back(arriving.data() + r * mine, mine);
  }
  std::ranges::copy(send[me], receive[me].begin());
  comm::AllToAll<uint32_t>(comm_, send, receive);

  ExpertArrivals arrivals;
  for (uint32_t r = 0; r < ranks; ++r) {
    arrivals.leaves.push_back(groups.first_row[FirstExpert(r)]);
    arrivals.arrives.push_back(arrivals.num_rows);
    for (size_t e = 0; e < mine; ++e) {
      const size_t count = arriving[r * mine + e];
      if (count > 0) arrivals.runs.push_back({first + e, r, arrivals.num_rows, count});
      arrivals.num_rows += count;
    }
  }
  arrivals.leaves.push_back(groups.row_token.size());
  arrivals.arrives.push_back(arrivals.num_rows);
  return arrivals;
}

namespace {

// Rows [begin[r], begin[r + 1]) of `from` to rank r; what comes from rank r to such rows of `to`.
template <typename T>
void Exchange(comm::Communicator& comm, MatView<const T> from,
              const std::vector<size_t>& from_begin, MatView<T> to,
              const std::vector<size_t>& to_begin) {
  CACHALOT_CHECK(from.rows == from_begin.back() && to.rows == to_begin.back());
  CACHALOT_CHECK(from.cols == to.cols && from.stride == from.cols && to.stride == to.cols);
  std::vector<std::span<const T>> send;
  std::vector<std::span<T>> receive;
  for (uint32_t r = 0; r < comm.size(); ++r) {
    send.emplace_back(from.data + from_begin[r] * from.cols,
                      (from_begin[r + 1] - from_begin[r]) * from.cols);
    receive.emplace_back(to.data + to_begin[r] * to.cols,
                         (to_begin[r + 1] - to_begin[r]) * to.cols);
  }
  std::ranges::copy(send[comm.rank()], receive[comm.rank()].begin());
  comm::AllToAll<T>(comm, send, receive);
}

}  // namespace

template <typename T>
void ExpertExchange::ToExperts(const ExpertArrivals& arrivals, MatView<const T> rows,
                               MatView<T> arrived) {
  Exchange(comm_, rows, arrivals.leaves, arrived, arrivals.arrives);
}

template <typename T>
void ExpertExchange::FromExperts(const ExpertArrivals& arrivals, MatView<const T> results,
                                 MatView<T> rows) {
  Exchange(comm_, results, arrivals.arrives, rows, arrivals.leaves);
}

#define CACHALOT_INSTANTIATE(T)                                                                 \
  template void ExpertExchange::ToExperts(const ExpertArrivals&, MatView<const T>, MatView<T>); \
  template void ExpertExchange::FromExperts(const ExpertArrivals&, MatView<const T>, MatView<T>);
CACHALOT_INSTANTIATE(float)
CACHALOT_INSTANTIATE(double)
#undef CACHALOT_INSTANTIATE

}  // namespace cachalot::train
