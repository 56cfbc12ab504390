// SPDX-License-Identifier: Apache-2.0
// Activations through the formats in which inference caches and multiplies them. Gradients pass as
// if nothing was rounded (straight-through estimate).  [V4 5.2.1, 2.3.4; model.md 3.6, 4.2, 4.7]
//
// The engine's own codecs do the rounding. They are of float32: calling these with T = double, or
// with sizes the formats do not have, is a bug and aborts.
#pragma once

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::train {

// entries [n, d], rotated, in place: FP8 per 64 on the first d - rope_dim dims, BF16 on the others.
// d - rope_dim is a multiple of 64.
template <typename T>
void RoundTripKvEntries(MatView<T> entries, size_t rope_dim, const kernels::Context& ctx);

// Index queries or keys [n, index_head_dim], rotated, in place: Hadamard transform, FP4 per 32, and
// the transform back, which is its own inverse. So dots are those of the engine, which does not
// transform back, up to the rounding of float32, and the backward pass needs no transform.
// index_head_dim is a power of two and a multiple of 32.
template <typename T>
void RoundTripIndexRows(MatView<T> rows, const kernels::Context& ctx);

}  // namespace cachalot::train
