// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/optimizer_shares.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <optional>
#include <utility>

#include "cachalot/train/expert_exchange.h"
#include "cachalot/train/newton_schulz.h"

namespace cachalot::train {
namespace {

// AdamW reads 16 bytes an element and writes 12: at some 25 GB/s a core, the time in which it would
// do about 100 flop of Newton-Schulz.
constexpr double kAdamWFlop = 100;

// The id of a routed expert's matrix: "layers.0.ffn.experts.7.w1.weight".
std::optional<size_t> RoutedExpert(std::string_view name) {
  constexpr std::string_view kPart = ".ffn.experts.";
  const size_t at = name.find(kPart);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view id = name.substr(at + kPart.size());
  size_t expert = 0;
  std::from_chars(id.data(), id.data() + id.size(), expert);
  return expert;
}

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

std::vector<uint32_t> AssignOwners(std::span<const double> costs, uint32_t ranks,
                                   std::vector<uint32_t> fixed) {
  std::vector<uint32_t> owners = std::move(fixed);
  owners.resize(costs.size(), kAnyRank);
  std::vector<size_t> order(costs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return costs[a] > costs[b]; });
  std::vector<double> load(ranks);
  for (size_t i = 0; i < owners.size(); ++i) {
    if (owners[i] != kAnyRank) load[owners[i]] += costs[i];
  }
  for (const size_t i : order) {
    if (owners[i] != kAnyRank) continue;
    const auto least = std::ranges::min_element(load);
    owners[i] = static_cast<uint32_t>(least - load.begin());
    *least += costs[i];
  }
  return owners;
}

RankShares ShareParameters(const ParameterSet& set, std::span<const OptimizerRule> rules,
                           size_t num_experts, uint32_t ranks, ExpertPlacement placement) {
  RankShares shares{.owners = std::vector<uint32_t>(set.parameters.size(), kAnyRank),
                    .replicated = std::vector<uint8_t>(set.parameters.size(), 1)};
  for (size_t i = 0; i < set.parameters.size(); ++i) {
    const auto expert = RoutedExpert(set.parameters[i].name);
    if (ranks == 1 || placement == ExpertPlacement::kReplicated || !expert) continue;
    shares.owners[i] = ExpertRank(*expert, num_experts, ranks);
    shares.replicated[i] = 0;
  }
  shares.owners = AssignOwners(StepCosts(set, rules), ranks, std::move(shares.owners));
  return shares;
}

}  // namespace cachalot::train
