// SPDX-License-Identifier: Apache-2.0
// Finite differences in float64 for the tests of this module.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "cachalot/base/rng.h"
#include "cachalot/train/matrix.h"

namespace cachalot::train {

// Uniform in (-1, 1).
inline double RandomValue(uint64_t seed, uint64_t i) {
  return 2.0 * UniformOpen(CounterRandom(seed, i, 7)) - 1.0;
}

// A matrix that a test differentiates by.
struct Variable {
  Variable(std::string n, size_t rows, size_t cols, uint64_t seed, double scale = 1.0,
           double center = 0.0)
      : name(std::move(n)), value(rows, cols), grad(rows, cols) {
    for (size_t i = 0; i < rows * cols; ++i)
      value.data()[i] = center + scale * RandomValue(seed, i);
    grad.ResizeZero(rows, cols);
  }
  Weight<double> weight() {
    Weight<double> w;
    w.value = value.view();
    w.grad = grad.view();
    return w;
  }
  std::span<double> values() { return {value.data(), value.rows() * value.cols()}; }
  std::span<const double> gradient() const { return {grad.data(), grad.rows() * grad.cols()}; }

  std::string name;
  Matrix<double> value, grad;
};

// The derivative of loss() along `direction` at `values`, by a central difference.
inline double Difference(std::span<double> values, std::span<const double> direction,
                         const std::function<double()>& loss, double step) {
  const std::vector<double> at(values.begin(), values.end());
  const auto evaluate = [&](double s) {
    for (size_t i = 0; i < at.size(); ++i) values[i] = at[i] + s * direction[i];
    return loss();
  };
  const double up = evaluate(step);
  const double down = evaluate(-step);
  std::copy(at.begin(), at.end(), values.begin());
  return (up - down) / (2 * step);
}

// Largest relative error of `gradient` along its own direction mixed with random ones (so that the
// derivative compared with is never small by chance) and along its largest coordinates. A gradient
// of exactly zero is compared with zero.
inline double GradientError(std::span<double> values, std::span<const double> gradient,
                            const std::function<double()>& loss, uint64_t seed,
                            double step = 1e-5) {
  double norm = 0;
  for (const double g : gradient) norm += g * g;
  norm = std::sqrt(norm);
  double worst = 0;
  std::vector<double> direction(values.size());
  const auto compare = [&] {
    double want = 0;
    for (size_t i = 0; i < direction.size(); ++i) want += gradient[i] * direction[i];
    const double found = Difference(values, direction, loss, step);
    const double scale = std::max({std::fabs(want), std::fabs(found), 1e-12});
    worst = std::max(worst, norm == 0 ? std::fabs(found) : std::fabs(found - want) / scale);
  };
  const double random_norm = std::sqrt(static_cast<double>(values.size()) / 3);
  for (uint64_t trial = 0; trial < 2; ++trial) {
    for (size_t i = 0; i < direction.size(); ++i) {
      direction[i] = RandomValue(seed + trial, i) / random_norm / 2;
      if (norm > 0) direction[i] += gradient[i] / norm;
    }
    compare();
  }
  const auto largest = std::max_element(gradient.begin(), gradient.end(), [](double a, double b) {
    return std::fabs(a) < std::fabs(b);
  });
  std::fill(direction.begin(), direction.end(), 0.0);
  direction[static_cast<size_t>(largest - gradient.begin())] = 1.0;
  compare();
  return worst;
}

// Checks the gradients of all variables, which the caller has computed.
inline void ExpectGradients(const std::vector<Variable*>& variables,
                            const std::function<double()>& loss, double tolerance = 1e-7) {
  uint64_t seed = 1000;
  for (Variable* v : variables) {
    EXPECT_LE(GradientError(v->values(), v->gradient(), loss, seed += 10), tolerance) << v->name;
  }
}

// sum(out * probe): a loss whose gradient by `out` is `probe`.
inline double Probe(MatView<const double> out, MatView<const double> probe) {
  double sum = 0;
  for (size_t r = 0; r < out.rows; ++r) {
    for (size_t c = 0; c < out.cols; ++c) sum += out.Row(r)[c] * probe.Row(r)[c];
  }
  return sum;
}

}  // namespace cachalot::train
