// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/expert_exchange.h"

#include <gtest/gtest.h>

#include <thread>

#include "cachalot/base/rng.h"

namespace cachalot::train {
namespace {

constexpr size_t kExperts = 6, kChosen = 2;

// Two different experts a token; the last rank has no tokens.
std::vector<uint32_t> Ids(uint32_t rank, uint32_t num_ranks) {
  std::vector<uint32_t> ids;
  const size_t tokens = rank + 1 == num_ranks ? 0 : 5 + rank;
  for (size_t t = 0; t < tokens; ++t) {
    const auto first = static_cast<uint32_t>(CounterRandom(7, rank, t) % kExperts);
    ids.push_back(first);
    ids.push_back((first + 1 + static_cast<uint32_t>(t % (kExperts - 1))) % kExperts);
  }
  return ids;
}

MatView<const uint32_t> View(const std::vector<uint32_t>& ids) {
  return {ids.data(), ids.size() / kChosen, kChosen};
}

// What a row says: whose it is.
float Row(uint32_t rank, size_t token, size_t expert) {
  return static_cast<float>(10000 * rank + 100 * token + expert);
}

void CheckRank(comm::Communicator& comm) {
  const std::vector<uint32_t> ids = Ids(comm.rank(), comm.size());
  const ExpertGroups groups = GroupByExpert(View(ids), kExperts);
  ExpertExchange exchange(kExperts, comm);
  const ExpertArrivals arrivals = exchange.Announce(groups);

  std::vector<float> rows(groups.row_token.size());
  for (size_t e = 0; e < kExperts; ++e) {
    for (size_t r = groups.first_row[e]; r < groups.first_row[e + 1]; ++r) {
      rows[r] = Row(comm.rank(), groups.row_token[r], e);
    }
  }
  std::vector<float> arrived(arrivals.num_rows);
  const MatView<float> there(arrived.data(), arrived.size(), 1);
  exchange.ToExperts(arrivals, MatView<const float>(rows.data(), rows.size(), 1), there);

  // Runs say whose rows they are, of experts that are here, one after the other.
  size_t next = 0;
  for (const ExpertRun& run : arrivals.runs) {
    EXPECT_EQ(run.first, next);
    EXPECT_EQ(ExpertRank(run.expert, kExperts, comm.size()), comm.rank());
    const auto source = static_cast<uint32_t>(run.source);
    const std::vector<uint32_t> theirs = Ids(source, comm.size());
    const ExpertGroups their_groups = GroupByExpert(View(theirs), kExperts);
    const size_t begin = their_groups.first_row[run.expert];
    EXPECT_EQ(run.count, their_groups.first_row[run.expert + 1] - begin);
    for (size_t i = 0; i < run.count; ++i) {
      EXPECT_EQ(arrived[run.first + i], Row(source, their_groups.row_token[begin + i], run.expert));
    }
    next += run.count;
  }
  EXPECT_EQ(next, arrivals.num_rows);

  std::vector<float> returned(rows.size());
  exchange.FromExperts(arrivals, MatView<const float>(there),
                       MatView<float>(returned.data(), returned.size(), 1));
  EXPECT_EQ(returned, rows);
}

TEST(ExpertExchange, RowsGoToTheirExpertsAndBack) {
  for (const uint32_t size : {1u, 2u, 4u}) {
    auto ranks = comm::ThreadRanks(size);
    std::vector<std::jthread> threads;
    for (auto& rank : ranks) threads.emplace_back([&comm = *rank] { CheckRank(comm); });
  }
}

TEST(ExpertExchange, WhenAllAreHereRowsArriveAsTheyAre) {
  const std::vector<uint32_t> ids = Ids(1, 3);
  const ExpertGroups groups = GroupByExpert(View(ids), kExperts);
  const ExpertArrivals arrivals = LocalArrivals(groups);
  EXPECT_EQ(arrivals.num_rows, ids.size());
  for (const ExpertRun& run : arrivals.runs) {
    EXPECT_EQ(run.source, 0u);
    EXPECT_EQ(run.first, groups.first_row[run.expert]);
    EXPECT_EQ(run.first + run.count, groups.first_row[run.expert + 1]);
  }
}

}  // namespace
}  // namespace cachalot::train
