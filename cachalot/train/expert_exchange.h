// SPDX-License-Identifier: Apache-2.0
// Rows of tokens in the order of their experts, and, when the experts of a layer are dealt out to
// ranks, their way there and back. [V4 3.1; report.md 9.1; docs/design/train.md, Ranks]
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cachalot/comm/communicator.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::train {

// (token, slot) pairs in the order of their experts: row r belongs to the expert e with
// first_row[e] <= r < first_row[e + 1], tokens ascending.
struct ExpertGroups {
  std::vector<size_t> first_row;    // [E + 1]
  std::vector<uint32_t> row_token;  // [T A]
  std::vector<uint32_t> slot_row;   // [T, A] -> row
};
ExpertGroups GroupByExpert(MatView<const uint32_t> ids, size_t num_experts);

// Rows [first, first + count) of what an expert computes on: those of one source's tokens. Each
// source is a micro-batch of its own, whose gradient is summed apart.
struct ExpertRun {
  size_t expert = 0;
  size_t source = 0;  // the rank that has the tokens; 0 when all experts are here
  size_t first = 0;
  size_t count = 0;  // not 0
};

// The rows that the experts of this rank compute on in one layer.
struct ExpertArrivals {
  std::vector<ExpertRun> runs;  // one after the other
  // Row ranges by rank [R + 1]: of the own tokens' rows, whose experts rank r has; of those that
  // arrive, whose tokens rank r has. Empty when all experts are here.
  std::vector<size_t> leaves, arrives;
  size_t num_rows = 0;  // that arrive
};
// When all experts are here: the rows as they are.
ExpertArrivals LocalArrivals(const ExpertGroups& groups);

// The rank that has routed expert e of E in every layer: blocks of neighbors, so that rows in the
// order of their experts are in that of the ranks too.
inline uint32_t ExpertRank(size_t expert, size_t num_experts, uint32_t ranks) {
  return static_cast<uint32_t>(expert * ranks / num_experts);
}

// All calls are collective: every rank makes the same ones, layer after layer, with tokens or
// without. The bits of what arrives are those that were sent. One caller at a time.
class ExpertExchange {
 public:
  // `comm` outlives it.
  ExpertExchange(size_t num_experts, comm::Communicator& comm)
      : num_experts_(num_experts), comm_(comm) {}

  ExpertArrivals Announce(const ExpertGroups& groups);
  // rows [groups' rows, n] -> arrived [num_rows, n]; both contiguous, apart from each other.
  template <typename T>
  void ToExperts(const ExpertArrivals& arrivals, MatView<const T> rows, MatView<T> arrived);
  // The way back: results [num_rows, n] -> rows [groups' rows, n].
  template <typename T>
  void FromExperts(const ExpertArrivals& arrivals, MatView<const T> results, MatView<T> rows);

 private:
  size_t FirstExpert(uint32_t rank) const;

  const size_t num_experts_;
  comm::Communicator& comm_;
};

}  // namespace cachalot::train
