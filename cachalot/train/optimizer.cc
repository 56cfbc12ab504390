// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/train/newton_schulz.h"

namespace cachalot::train {
namespace {

// Elements of an element-wise task: long against handing it out, short against a thread's share.
constexpr size_t kSliceFloats = size_t{1} << 15;

// Newton-Schulz works on the wide orientation, where the Gram matrix is the small one.
std::pair<size_t, size_t> Wide(size_t rows, size_t cols) {
  return {std::min(rows, cols), std::max(rows, cols)};
}

size_t BlockScratchFloats(size_t n, size_t m) {
  return (n * m + 15) / 16 * 16 + NewtonSchulzScratchFloats(n, m);
}

template <typename Task>
void ForSlices(size_t size, const Task& task) {
  for (size_t begin = 0; begin < size; begin += kSliceFloats) {
    task(begin, std::min(kSliceFloats, size - begin));
  }
}

}  // namespace

std::vector<OptimizerRule> RulesFor(const model::Config& config, const ParameterSet& set,
                                    const OptimizerOptions& options) {
  std::vector<OptimizerRule> rules;
  for (const Parameter& p : set.parameters) {
    OptimizerRule rule = RuleFor(config, p.name, p.rows, p.cols);
    if (!options.muon && rule.kind == OptimizerKind::kMuon) rule.kind = OptimizerKind::kAdamW;
    rules.push_back(std::move(rule));
  }
  return rules;
}

Optimizer::Optimizer(const model::Config& config, const ParameterSet& set,
                     const OptimizerOptions& options)
    : options_(options), rules_(RulesFor(config, set, options)) {
  state_.resize(set.parameters.size());
  for (size_t i = 0; i < set.parameters.size(); ++i) {
    const Parameter& p = set.parameters[i];
    const OptimizerRule& rule = rules_[i];
    OptimizerState& state = state_[i];
    if (!p.held()) continue;
    if (rule.kind != OptimizerKind::kNone) state.first = AlignedBuffer<float>(p.size());
    if (rule.kind == OptimizerKind::kAdamW) {
      state.second = AlignedBuffer<float>(p.size());
      ForSlices(p.size(), [&](size_t begin, size_t size) { slices_.push_back({i, begin, size}); });
    } else if (rule.kind == OptimizerKind::kMuon) {
      size_t row = 0;
      for (const size_t rows : rule.blocks) {
        const auto [n, m] = Wide(rows, p.cols);
        blocks_.push_back({i, row, rows, p.cols, train::NewtonSchulzFlop(n, m)});
        row += rows;
      }
    }
  }
  // Large ones first, so that the last tasks of a step are short ones.
  std::stable_sort(blocks_.begin(), blocks_.end(),
                   [](const Block& a, const Block& b) { return a.flop > b.flop; });
}

double Optimizer::NewtonSchulzFlop(std::span<const uint8_t> frozen) const {
  double sum = 0;
  for (const Block& block : blocks_) {
    if (frozen.empty() || frozen[block.parameter] == 0) sum += block.flop;
  }
  return sum;
}

void Optimizer::Step(ParameterSet& set, float lr, std::span<const uint8_t> frozen,
                     const kernels::Context& ctx) {
  CACHALOT_CHECK(set.parameters.size() == state_.size());
  CACHALOT_CHECK(frozen.empty() || frozen.size() == state_.size());
  for (size_t i = 0; i < state_.size(); ++i) {
    if (frozen.empty() || frozen[i] == 0) ++state_[i].steps;
  }
  StepMuon(set, lr, frozen, ctx);
  ctx.pool->ParallelFor(slices_.size(), [&](size_t task, size_t) {
    const Slice& slice = slices_[task];
    if (frozen.empty() || frozen[slice.parameter] == 0) StepAdamW(slice, set, lr);
  });
}

// A matrix is one task: it stays in that core's cache for all ten iterations and nothing waits.
// Matrices too large for that to balance go first, one after the other on all threads. Both ways
// give the same bits.
void Optimizer::StepMuon(ParameterSet& set, float lr, std::span<const uint8_t> frozen,
                         const kernels::Context& ctx) {
  const double share = NewtonSchulzFlop({}) / static_cast<double>(ctx.pool->num_threads());
  size_t alone = 0;
  while (ctx.pool->num_threads() > 1 && alone < blocks_.size() && blocks_[alone].flop > share / 2) {
    ++alone;
  }
  const auto run = [&](const Block& block, size_t worker, const auto& newton_schulz) {
    if (!frozen.empty() && frozen[block.parameter] != 0) return;
    const auto [n, m] = Wide(block.rows, block.cols);
    auto* scratch = reinterpret_cast<float*>(
        ctx.pool->WorkerScratch(worker, BlockScratchFloats(n, m) * sizeof(float)));
    const MatView<float> x(scratch, n, m);
    LoadNesterov(block, set, x);
    newton_schulz(x, scratch + (n * m + 15) / 16 * 16);
    Apply(block, set, lr, x);
  };
  for (size_t i = 0; i < alone; ++i) {
    run(blocks_[i], 0, [&](MatView<float> x, float* rest) { NewtonSchulz(x, rest, ctx); });
  }
  ctx.pool->ParallelFor(blocks_.size() - alone, [&](size_t task, size_t worker) {
    run(blocks_[alone + task], worker,
        [&](MatView<float> x, float* rest) { NewtonSchulzSerial(x, rest, ctx.target); });
  });
}

// M <- mu M + G; x = mu M + G, transposed if the block is tall.
void Optimizer::LoadNesterov(const Block& block, ParameterSet& set, MatView<float> x) {
  const float* grad = set.parameters[block.parameter].grad.data() + block.row * block.cols;
  float* momentum = state_[block.parameter].first.data() + block.row * block.cols;
  const bool tall = block.rows > block.cols;
  const float mu = options_.momentum;
  for (size_t r = 0; r < block.rows; ++r) {
    for (size_t c = 0; c < block.cols; ++c) {
      const size_t i = r * block.cols + c;
      momentum[i] = mu * momentum[i] + grad[i];
      const float nesterov = mu * momentum[i] + grad[i];
      (tall ? x.data[c * x.stride + r] : x.data[r * x.stride + c]) = nesterov;
    }
  }
}

// A semi-orthogonal n x m matrix has RMS 1 / sqrt(max(n, m)); the factor makes it update_rms.
void Optimizer::Apply(const Block& block, ParameterSet& set, float lr,
                      MatView<const float> x) const {
  float* value = set.parameters[block.parameter].value.data() + block.row * block.cols;
  const bool tall = block.rows > block.cols;
  const float keep = 1.0f - lr * options_.weight_decay;
  const float scale =
      lr * options_.update_rms * std::sqrt(static_cast<float>(std::max(block.rows, block.cols)));
  for (size_t r = 0; r < block.rows; ++r) {
    for (size_t c = 0; c < block.cols; ++c) {
      const float update = tall ? x.data[c * x.stride + r] : x.data[r * x.stride + c];
      value[r * block.cols + c] = value[r * block.cols + c] * keep - scale * update;
    }
  }
}

void Optimizer::StepAdamW(const Slice& slice, ParameterSet& set, float lr) {
  const Parameter& p = set.parameters[slice.parameter];
  OptimizerState& state = state_[slice.parameter];
  const auto steps = static_cast<double>(state.steps);
  const float keep = rules_[slice.parameter].decay ? 1.0f - lr * options_.weight_decay : 1.0f;
  const auto rate =
      static_cast<float>(double{lr} / (1.0 - std::pow(double{options_.beta1}, steps)));
  const auto correct2 = static_cast<float>(1.0 / (1.0 - std::pow(double{options_.beta2}, steps)));
  const float* grad = p.grad.data() + slice.begin;
  float* value = const_cast<float*>(p.value.data()) + slice.begin;
  float* first = state.first.data() + slice.begin;
  float* second = state.second.data() + slice.begin;
  for (size_t i = 0; i < slice.size; ++i) {
    const float g = grad[i];
    first[i] = options_.beta1 * first[i] + (1.0f - options_.beta1) * g;
    second[i] = options_.beta2 * second[i] + (1.0f - options_.beta2) * g * g;
    const float update = first[i] / (std::sqrt(second[i] * correct2) + options_.epsilon);
    value[i] = value[i] * keep - rate * update;
  }
}

}  // namespace cachalot::train
