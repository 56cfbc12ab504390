// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/optimizer_rules.h"

#include "cachalot/base/check.h"

namespace cachalot::train {
namespace {

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// The matrices a released tensor stacks.
std::vector<size_t> IndependentBlocks(const model::Config& c, std::string_view name, size_t rows) {
  if (name.ends_with(".wo_a.weight")) return std::vector<size_t>(c.o_groups, rows / c.o_groups);
  // CSA's compressors hold streams b and a, each half of the rows [V4 2.3.1]; HCA's, one stream of
  // head_dim rows. The indexer's are CSA's.
  if (Contains(name, ".compressor.w")) {
    const size_t width = Contains(name, ".indexer.") ? c.index_head_dim : c.head_dim;
    return std::vector<size_t>(rows / width, width);
  }
  // W_pre, W_post, W_res [V4 2.2 eq. 3-5]; hc_head has the first only.
  if (name.ends_with("_fn") && rows == c.mix_rows()) {
    return {c.hc_mult, c.hc_mult, size_t{c.hc_mult} * c.hc_mult};
  }
  return {rows};
}

}  // namespace

OptimizerRule RuleFor(const model::Config& config, std::string_view name, size_t rows,
                      size_t cols) {
  if (name.ends_with("gate.bias")) return {.kind = OptimizerKind::kNone, .decay = false};
  if (name == "embed.weight" || name == "head.weight") return {};
  const bool matrix = rows > 1 && cols > 1 && !name.ends_with(".ape");
  // A weight of one row is still a matrix to its layer, but a unit vector is all that Newton-Schulz
  // would make of it.
  if (!matrix || name.ends_with("norm.weight")) return {.decay = false};
  OptimizerRule rule{.kind = OptimizerKind::kMuon, .blocks = IndependentBlocks(config, name, rows)};
  size_t sum = 0;
  for (const size_t block : rule.blocks) sum += block;
  CACHALOT_CHECK(sum == rows);
  return rule;
}

}  // namespace cachalot::train
