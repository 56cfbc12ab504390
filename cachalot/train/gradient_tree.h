// SPDX-License-Identifier: Apache-2.0
// Gradients of the micro-batches of a step, summed by a fixed binary tree, so that ranks can share
// them without changing a bit. [docs/design/train.md, Ranks]
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "cachalot/kernels/context.h"
#include "cachalot/train/parameters.h"

namespace cachalot::train {

class GradientTree {
 public:
  // Calls run(slot) for slots 0 .. count - 1, each with the gradients of `set` at zero, to add
  // those of micro-batch `slot`; leaves their sum in `set`. The tree is that over the next power of
  // two of leaves, each node left + right, empty leaves left out. So the sum over 2^k aligned
  // ranges of slots, each summed by a tree of its own and these by SumParts, has the same bits:
  // gradients are never -0 (they start at +0), and adding the +0 of a range without micro-batches
  // changes none. Keeps one copy of the gradients a level beyond the first; later calls pass the
  // same set.
  void Sum(ParameterSet& set, size_t count, const std::function<void(size_t)>& run,
           const kernels::Context& ctx);

 private:
  struct Call {
    ParameterSet& set;
    size_t count;
    const std::function<void(size_t)>& run;
    const kernels::Context& ctx;
  };
  void SumRange(const Call& call, size_t begin, size_t end);

  // Sums of finished left subtrees: at most one of each level at a time.
  std::vector<std::vector<AlignedBuffer<float>>> left_;
};

}  // namespace cachalot::train
