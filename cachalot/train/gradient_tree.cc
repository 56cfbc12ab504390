// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/gradient_tree.h"

#include <algorithm>
#include <bit>

namespace cachalot::train {

void GradientTree::Sum(ParameterSet& set, size_t count, const std::function<void(size_t)>& run,
                       const kernels::Context& ctx) {
  SumRange({set, count, run, ctx}, 0, std::bit_ceil(std::max<size_t>(count, 1)));
}

// The leaves [begin, end), a range of a power of two aligned to its size.
void GradientTree::SumRange(const Call& call, size_t begin, size_t end) {
  std::vector<Parameter>& parameters = call.set.parameters;
  if (end - begin == 1 || begin >= call.count) {
    call.set.ZeroGradients();
    if (begin < call.count) call.run(begin);
    return;
  }
  const size_t middle = begin + (end - begin) / 2;
  SumRange(call, begin, middle);
  if (middle >= call.count) return;
  const auto level = static_cast<size_t>(std::countr_zero(end - begin)) - 1;
  if (left_.size() <= level) left_.resize(level + 1);
  std::vector<AlignedBuffer<float>>& left = left_[level];
  for (size_t i = left.size(); i < parameters.size(); ++i) {
    left.emplace_back(parameters[i].grad.size());
  }
  // Copied, not swapped: the network holds on to where its gradients are.
  call.ctx.pool->ParallelFor(left.size(), [&](size_t i, size_t) {
    std::ranges::copy(parameters[i].grad.span(), left[i].data());
  });
  SumRange(call, middle, end);
  call.ctx.pool->ParallelFor(left.size(), [&](size_t i, size_t) {
    const std::span<float> grad = parameters[i].grad.span();
    for (size_t k = 0; k < grad.size(); ++k) grad[k] += left[i][k];
  });
}

}  // namespace cachalot::train
