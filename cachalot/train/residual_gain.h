// SPDX-License-Identifier: Apache-2.0
// How much the composite of the residual maps amplifies what passes through it. [V4 2.2; mHC 3, 5]
#pragma once

#include <cstddef>
#include <vector>

#include "cachalot/train/matrix.h"

namespace cachalot::train {

// maps[l]: [T, M M], the residual map of half-layer l (attention, MoE, attention, ...) at each
// token, element j M + k from stream j to stream k, as HyperSaved::comb. Entry l of the result is
// of the composite of maps 0 .. l: the largest sum of magnitudes in one of its rows or columns, so
// the most by which a signal (rows) or a gradient (columns) can grow on its way, mean over up to 64
// tokens that are spread evenly over the T. 1 throughout for doubly stochastic maps. float64,
// serial: 2 L M^3 multiplications a token.
template <typename T>
std::vector<double> CompositeGains(const std::vector<MatView<const T>>& maps, size_t streams);

}  // namespace cachalot::train
