// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/optimizer_shares.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "cachalot/base/rng.h"

namespace cachalot::train {
namespace {

std::vector<double> Loads(const std::vector<double>& costs, const std::vector<uint32_t>& owners,
                          uint32_t ranks) {
  std::vector<double> loads(ranks);
  for (size_t i = 0; i < costs.size(); ++i) loads[owners[i]] += costs[i];
  return loads;
}

TEST(AssignOwners, LargeOnesFirstToTheLeastLoadedRank) {
  EXPECT_EQ(AssignOwners(std::vector<double>{1, 5, 3, 3}, 2), (std::vector<uint32_t>{0, 0, 1, 1}));
  EXPECT_EQ(AssignOwners(std::vector<double>{2, 7, 2}, 1), (std::vector<uint32_t>{0, 0, 0}));
  EXPECT_TRUE(AssignOwners({}, 4).empty());
}

// Whatever the costs: no rank exceeds the mean by more than one parameter.
TEST(AssignOwners, LoadsAreLevelToWithinOneParameter) {
  std::vector<double> costs;
  for (uint64_t i = 0; i < 97; ++i) {
    costs.push_back(static_cast<double>(CounterRandom(7, i, 0) % 1000));
  }
  const double largest = *std::ranges::max_element(costs);
  for (const uint32_t ranks : {2u, 4u, 8u}) {
    const auto loads = Loads(costs, AssignOwners(costs, ranks), ranks);
    const auto [least, most] = std::ranges::minmax_element(loads);
    EXPECT_LE(*most - *least, largest) << ranks;
  }
}

}  // namespace
}  // namespace cachalot::train
