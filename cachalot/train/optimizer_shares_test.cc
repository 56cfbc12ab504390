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

TEST(AssignOwners, LevelsWhatIsFreeAroundWhatIsFixed) {
  EXPECT_EQ(AssignOwners(std::vector<double>{1, 9, 3, 3}, 2, {kAnyRank, 1, kAnyRank, kAnyRank}),
            (std::vector<uint32_t>{0, 1, 0, 0}));
}

TEST(ShareParameters, DealsOutRoutedExpertsInBlocks) {
  ParameterSet set;
  for (const char* name : {"layers.0.ffn.experts.0.w1.weight", "layers.0.ffn.experts.1.w2.weight",
                           "layers.3.ffn.experts.11.w3.weight", "mtp.0.ffn.experts.5.w1.weight",
                           "layers.0.ffn.shared_experts.w1.weight", "layers.0.ffn.gate.weight"}) {
    set.parameters.push_back({name, 8, 8, {}, {}});
  }
  const std::vector<OptimizerRule> rules(6, {.kind = OptimizerKind::kMuon, .blocks = {8}});
  const auto four = ShareParameters(set, rules, 12, 4, ExpertPlacement::kDistributed);
  EXPECT_EQ(four.replicated, (std::vector<uint8_t>{0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(four.owners, (std::vector<uint32_t>{0, 0, 3, 1, 2, 1}));
  const auto one = ShareParameters(set, rules, 12, 1, ExpertPlacement::kDistributed);
  EXPECT_EQ(one.replicated, std::vector<uint8_t>(6, 1));
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
