// SPDX-License-Identifier: Apache-2.0
// Passes over all gradients, in slices of fixed size: a sum has the same order on any machine.
#include <algorithm>
#include <cmath>

#include "cachalot/train/optimizer.h"

namespace cachalot::train {
namespace {

constexpr size_t kSliceFloats = size_t{1} << 15;

struct Slice {
  const Parameter* parameter;
  size_t begin, size;
};

std::vector<Slice> Slices(const ParameterSet& set) {
  std::vector<Slice> slices;
  for (const Parameter& p : set.parameters) {
    for (size_t begin = 0; begin < p.size(); begin += kSliceFloats) {
      slices.push_back({&p, begin, std::min(kSliceFloats, p.size() - begin)});
    }
  }
  return slices;
}

// x - x is 0 exactly for finite x, NaN otherwise.
bool AllFinite(const float* x, size_t size) {
  float sum = 0;
  for (size_t i = 0; i < size; ++i) sum += x[i] - x[i];
  return sum == 0;
}

}  // namespace

std::vector<double> GradientSquares(const ParameterSet& set, const kernels::Context& ctx) {
  const std::vector<Slice> slices = Slices(set);
  std::vector<double> sums(slices.size());
  ctx.pool->ParallelFor(slices.size(), [&](size_t i, size_t) {
    const Slice& s = slices[i];
    if (!s.parameter->held()) return;
    const float* g = s.parameter->grad.data() + s.begin;
    double sum = 0;
    for (size_t k = 0; k < s.size; ++k) sum += double{g[k]} * double{g[k]};
    sums[i] = sum;
  });
  return sums;
}

double NormOf(std::span<const double> squares) {
  double total = 0;
  for (const double sum : squares) total += sum;
  return std::sqrt(total);
}

void ScaleGradients(ParameterSet& set, float factor, const kernels::Context& ctx) {
  ctx.pool->ParallelFor(set.parameters.size(), [&](size_t i, size_t) {
    Parameter& p = set.parameters[i];
    if (!p.held()) return;
    for (size_t k = 0; k < p.size(); ++k) p.grad[k] *= factor;
  });
}

std::optional<NonFinite> FirstNonFinite(const ParameterSet& set, const kernels::Context& ctx) {
  constexpr uint8_t kGradient = 1;
  constexpr uint8_t kValue = 2;
  const std::vector<Slice> slices = Slices(set);
  std::vector<uint8_t> bad(slices.size());
  ctx.pool->ParallelFor(slices.size(), [&](size_t i, size_t) {
    const Slice& s = slices[i];
    if (!s.parameter->held()) return;
    if (!AllFinite(s.parameter->grad.data() + s.begin, s.size)) bad[i] |= kGradient;
    if (!AllFinite(s.parameter->value.data() + s.begin, s.size)) bad[i] |= kValue;
  });
  for (size_t i = 0; i < slices.size(); ++i) {
    if (bad[i] == 0) continue;
    return NonFinite{static_cast<size_t>(slices[i].parameter - set.parameters.data()),
                     (bad[i] & kValue) == 0};
  }
  return std::nullopt;
}

}  // namespace cachalot::train
