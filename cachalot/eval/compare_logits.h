// SPDX-License-Identifier: Apache-2.0
// How far two sets of logits of the same positions are apart: the figures every numeric claim of
// cachalot is stated in (golden tests, quality cost of a faster kernel).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cachalot/tensor/matrix.h"

namespace cachalot::eval {

// KL(softmax(want) || softmax(got)) in nats, in double; >= 0 up to rounding. +inf if either holds a
// NaN or +inf. Same sizes.
double KlDivergence(std::span<const float> want, std::span<const float> got);

// Index of the largest value, ties to the lower; NaN never wins.
uint32_t Argmax(std::span<const float> logits);

struct LogitComparison {
  uint64_t num_positions = 0;
  double mean_kl = 0.0;
  double median_kl = 0.0;
  double max_kl = 0.0;
  double argmax_agreement = 0.0;  // fraction of positions
  double max_abs_error = 0.0;
  // Fraction of positions whose largest absolute error is within the tolerance asked for.
  double within_tolerance = 0.0;
};

// Gathers positions of several prompts, then sums up over all of them.
class LogitComparer {
 public:
  explicit LogitComparer(double abs_tolerance = 0.0) : abs_tolerance_(abs_tolerance) {}

  // [N, V] each.
  void Add(MatView<const float> want, MatView<const float> got);
  LogitComparison Summary() const;  // all zero before the first Add

 private:
  double abs_tolerance_;
  std::vector<double> kls_;
  uint64_t num_argmax_equal_ = 0;
  uint64_t num_within_ = 0;
  double max_abs_error_ = 0.0;
};

}  // namespace cachalot::eval
