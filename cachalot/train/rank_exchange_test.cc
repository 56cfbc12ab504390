// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/rank_exchange.h"

#include <gtest/gtest.h>

#include <thread>

#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/train/gradient_tree.h"

namespace cachalot::train {
namespace {

// One longer than a bucket, so that buckets cut it and hold the end of one and the next ones.
const std::vector<size_t> kSizes = {5, kBucketFloats + 3, 1, 1000, 0, 77};
const std::vector<uint32_t> kOwners = {1, 0, 1, 0, 1, 1};  // of four ranks two own nothing
const RankShares kShares = {kOwners, std::vector<uint8_t>(kOwners.size(), 1)};

ParameterSet MakeSet() {
  ParameterSet set;
  for (const size_t size : kSizes) {
    set.parameters.push_back({StrCat("p", set.parameters.size()), 1, size,
                              AlignedBuffer<float>(size), AlignedBuffer<float>(size)});
  }
  return set;
}

float Gradient(uint64_t slot, uint64_t parameter, uint64_t i) {
  return static_cast<float>(UniformOpen(CounterRandom(slot, parameter, i)) - 0.5);
}

// As the backward pass of one micro-batch.
void AddGradients(uint64_t slot, ParameterSet& set) {
  for (size_t p = 0; p < set.parameters.size(); ++p) {
    for (size_t i = 0; i < set.parameters[p].size(); ++i) {
      set.parameters[p].grad[i] += Gradient(slot, p, i);
    }
  }
}

template <typename Body>
void OnRanks(uint32_t size, const Body& body) {
  auto ranks = comm::ThreadRanks(size);
  std::vector<std::jthread> threads;
  for (auto& rank : ranks) {
    threads.emplace_back([&body, &comm = *rank] {
      ThreadPool pool(1);
      body(comm, kernels::Context{&pool, kernels::Path::kSimd, kernels::SupportedTargets()[0]});
    });
  }
}

// Five micro-batches: of four ranks one has one, and one has none.
TEST(RankExchange, AnyNumberOfRanksSumsTheSameTree) {
  constexpr size_t kSlots = 5, kLeaves = 8;
  ThreadPool pool(2);
  const kernels::Context ctx{&pool, kernels::Path::kSimd, kernels::SupportedTargets()[0]};
  ParameterSet one = MakeSet();
  GradientTree tree;
  tree.Sum(
      one, kSlots, [&](size_t slot) { AddGradients(slot, one); }, ctx);
  float by_hand = Gradient(0, 3, 7) + Gradient(1, 3, 7);
  by_hand += Gradient(2, 3, 7) + Gradient(3, 3, 7);
  by_hand += Gradient(4, 3, 7);
  EXPECT_EQ(one.parameters[3].grad[7], by_hand);
  for (const uint32_t ranks : {2u, 4u}) {
    OnRanks(ranks, [&](comm::Communicator& comm, const kernels::Context& rank_ctx) {
      ParameterSet set = MakeSet();
      GradientTree mine;
      const size_t share = kLeaves / ranks, begin = comm.rank() * share;
      mine.Sum(
          set, share,
          [&](size_t slot) {
            if (begin + slot < kSlots) AddGradients(begin + slot, set);
          },
          rank_ctx);
      SumGradientsAtOwners(set, kShares, comm, rank_ctx);
      for (size_t p = 0; p < kOwners.size(); ++p) {
        if (kOwners[p] != comm.rank()) continue;
        EXPECT_TRUE(
            std::ranges::equal(set.parameters[p].grad.span(), one.parameters[p].grad.span()))
            << ranks << " ranks, " << p;
      }
    });
  }
}

TEST(RankExchange, DistributedGradientsAreSummedWhereTheyAre) {
  OnRanks(4, [](comm::Communicator& comm, const kernels::Context& ctx) {
    ParameterSet set;
    set.parameters.push_back({"expert", 3, 5, {}, {}});
    if (comm.rank() == 2) {
      set.parameters[0].grad = AlignedBuffer<float>(60);
      for (uint64_t i = 0; i < 60; ++i) set.parameters[0].grad[i] = Gradient(i / 15, 0, i % 15);
    }
    SumGradientsAtOwners(set, {{2}, {0}}, comm, ctx);
    EXPECT_EQ(comm.bytes_sent(), 0u);
    for (uint64_t i = 0; comm.rank() == 2 && i < 15; ++i) {
      const float left = Gradient(0, 0, i) + Gradient(1, 0, i);
      const float right = Gradient(2, 0, i) + Gradient(3, 0, i);
      EXPECT_EQ(set.parameters[0].grad[i], left + right);
    }
  });
}

TEST(RankExchange, ValuesComeFromTheirOwners) {
  OnRanks(4, [](comm::Communicator& comm, const kernels::Context&) {
    ParameterSet set = MakeSet();
    for (size_t p = 0; p < kOwners.size(); ++p) {
      if (kOwners[p] != comm.rank()) continue;
      for (size_t i = 0; i < kSizes[p]; ++i) set.parameters[p].value[i] = Gradient(9, p, i);
    }
    ShareValues(set, kShares, comm);
    for (size_t p = 0; p < kOwners.size(); ++p) {
      for (size_t i = 0; i < kSizes[p]; ++i) {
        ASSERT_EQ(set.parameters[p].value[i], Gradient(9, p, i)) << p << ", " << i;
      }
    }
  });
}

TEST(RankExchange, TheFirstRankGathersArrays) {
  OnRanks(2, [](comm::Communicator& comm, const kernels::Context&) {
    AlignedBuffer<float> buffer;
    for (const uint32_t owner : {1u, 0u, 1u}) {
      std::vector<float> mine;
      if (comm.rank() == owner) mine = {1.0f, static_cast<float>(owner)};
      const auto found = GatherOnFirstRank(mine, 2, owner, comm, buffer);
      const std::vector<float> want = {1.0f, static_cast<float>(owner)};
      if (comm.rank() == 0) {
        EXPECT_TRUE(std::ranges::equal(found, want));
      } else {
        EXPECT_TRUE(found.empty());
      }
    }
  });
}

}  // namespace
}  // namespace cachalot::train
