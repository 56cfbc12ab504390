// SPDX-License-Identifier: Apache-2.0
// Muon and AdamW over one set of parameters. [V4 2.4 alg. 1, 4.2.2; docs/design/train.md]
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/matrix.h"
#include "cachalot/train/optimizer_rules.h"
#include "cachalot/train/parameters.h"

namespace cachalot::train {

struct OptimizerOptions {
  bool muon = true;  // false: AdamW for everything, to compare with
  float momentum = 0.95f;
  float update_rms = 0.18f;  // RMS of a Muon update at learning rate 1
  float weight_decay = 0.1f;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float epsilon = 1e-20f;
};

// What a parameter's optimizer remembers; part of a training checkpoint.
struct OptimizerState {
  AlignedBuffer<float> first;   // Muon: momentum; AdamW: first moment
  AlignedBuffer<float> second;  // AdamW: second moment
  uint64_t steps = 0;           // of this parameter: AdamW's bias correction
};

class Optimizer {
 public:
  // `set` gives names and shapes; later calls pass the same set. State starts at zero. What the set
  // does not hold has none: Step counts its steps and leaves the rest to the rank that holds it.
  Optimizer(const model::Config& config, const ParameterSet& set, const OptimizerOptions& options);

  // value <- value - update(grad), for every parameter that is not frozen; gradients are left as
  // they are. `frozen` is empty or holds one flag a parameter: such keep value, state and step
  // count. Muon [V4 alg. 1]:
  //   M <- mu M + G;   O = NewtonSchulz(mu M + G) sqrt(max(n, m)) update_rms
  //   W <- W (1 - lr decay) - lr O
  // AdamW: m, v with bias correction, the same decay. The bits do not depend on the number of
  // threads. Allocates nothing once the workers' scratch exists.
  void Step(ParameterSet& set, float lr, std::span<const uint8_t> frozen,
            const kernels::Context& ctx);

  // What Newton-Schulz computes in such a Step.
  double NewtonSchulzFlop(std::span<const uint8_t> frozen) const;

  const std::vector<OptimizerRule>& rules() const { return rules_; }
  std::vector<OptimizerState>& state() { return state_; }
  const std::vector<OptimizerState>& state() const { return state_; }

 private:
  // One matrix for Muon: rows [row, row + rows) of a parameter.
  struct Block {
    size_t parameter;
    size_t row, rows, cols;
    double flop;
  };
  // A run of elements for AdamW.
  struct Slice {
    size_t parameter;
    size_t begin, size;
  };

  void StepMuon(ParameterSet& set, float lr, std::span<const uint8_t> frozen,
                const kernels::Context& ctx);
  void LoadNesterov(const Block& block, ParameterSet& set, MatView<float> x);
  void Apply(const Block& block, ParameterSet& set, float lr, MatView<const float> x) const;
  void StepAdamW(const Slice& slice, ParameterSet& set, float lr);

  OptimizerOptions options_;
  std::vector<OptimizerRule> rules_;
  std::vector<OptimizerState> state_;
  std::vector<Block> blocks_;  // large first, equal shapes together
  std::vector<Slice> slices_;
};

// The rules of a set's parameters, in its order.
std::vector<OptimizerRule> RulesFor(const model::Config& config, const ParameterSet& set,
                                    const OptimizerOptions& options);

// All below pass over the gradients of what the set holds.

// Sums of squares of all gradients in slices that depend on shapes alone; 0 for those of parameters
// that are not held, so that the slices of all ranks add up to the same numbers as those of one.
std::vector<double> GradientSquares(const ParameterSet& set, const kernels::Context& ctx);
// sqrt of the sum of slices, in order.
double NormOf(std::span<const double> squares);

// Gradients times `factor`.
void ScaleGradients(ParameterSet& set, float factor, const kernels::Context& ctx);

// The first parameter with a value or gradient that is no finite number, for what stops a run must
// name what broke; nullopt if there is none.
struct NonFinite {
  size_t parameter = 0;
  bool gradient = false;  // the value is finite
};
std::optional<NonFinite> FirstNonFinite(const ParameterSet& set, const kernels::Context& ctx);

}  // namespace cachalot::train
