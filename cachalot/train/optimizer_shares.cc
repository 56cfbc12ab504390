// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/optimizer_shares.h"

#include <algorithm>
#include <numeric>

#include "cachalot/train/newton_schulz.h"

namespace cachalot::train {
namespace {

// AdamW reads 16 bytes an element and writes 12: at some 25 GB/s a core, the time in which it would
// do about 100 flop of Newton-Schulz.
constexpr double kAdamWFlop = 100;

}  // namespace

std::vector<double> StepCosts(const ParameterSet& set, std::span<const OptimizerRule> rules) {
  std::vector<double> costs;
  for (size_t i = 0; i < set.parameters.size(); ++i) {
    const Parameter& p = set.parameters[i];
    const OptimizerRule& rule = rules[i];
    double cost = 0;
    if (rule.kind == OptimizerKind::kAdamW) cost = kAdamWFlop * static_cast<double>(p.size());
    if (rule.kind == OptimizerKind::kMuon) {
      for (const size_t rows : rule.blocks) {
        cost += NewtonSchulzFlop(std::min(rows, p.cols), std::max(rows, p.cols));
      }
    }
    costs.push_back(cost);
  }
  return costs;
}

std::vector<uint32_t> AssignOwners(std::span<const double> costs, uint32_t ranks) {
  std::vector<size_t> order(costs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return costs[a] > costs[b]; });
  std::vector<double> load(ranks);
  std::vector<uint32_t> owners(costs.size());
  for (const size_t i : order) {
    const auto least = std::ranges::min_element(load);
    owners[i] = static_cast<uint32_t>(least - load.begin());
    *least += costs[i];
  }
  return owners;
}

}  // namespace cachalot::train
