// SPDX-License-Identifier: Apache-2.0
// The expert half: clamped SwiGLU experts, combine, shared expert, forward and backward.
// [V4 4.2.3; model.md 5]
//
//   expert(x) = w2 (weight silu(min(w1 x, limit)) clamp(w3 x, -limit, limit))
//   z = sum over the chosen experts, ids ascending, then + shared(x) with weight 1
//
// A clamped value passes no gradient.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cachalot/kernels/context.h"
#include "cachalot/train/expert_exchange.h"
#include "cachalot/train/matrix.h"

namespace cachalot::train {

// h = weight silu(min(g, limit)) clamp(u, -limit, limit). g, u, h [N, I]; row_weights [N] or null
// for 1.
template <typename T>
void SwiGluForward(MatView<const T> g, MatView<const T> u, T limit, const T* row_weights,
                   MatView<T> h, const kernels::Context& ctx);
// d_g, d_u overwritten (d_g may be d_h); d_row_weights [N] overwritten unless null.
template <typename T>
void SwiGluBackward(MatView<const T> g, MatView<const T> u, T limit, const T* row_weights,
                    MatView<const T> d_h, MatView<T> d_g, MatView<T> d_u, T* d_row_weights,
                    const kernels::Context& ctx);

template <typename T>
struct ExpertParams {
  Weight<T> w1, w3;  // [I, D] gate, up
  Weight<T> w2;      // [D, I] down
};

template <typename T>
struct MoeParams {
  std::vector<ExpertParams<T>> experts;
  ExpertParams<T> shared;
  double limit = 10.0;
  ExpertExchange* exchange = nullptr;  // null: all experts are on this rank
};

template <typename T>
struct MoeSaved {
  ExpertGroups groups;
  ExpertArrivals arrivals;           // N rows; T A when all experts are here
  Matrix<T> gate, up;                // [N, I], as they arrive
  Matrix<T> shared_gate, shared_up;  // [T, I]

  size_t bytes() const {
    return (groups.row_token.size() + groups.slot_row.size()) * sizeof(uint32_t) + gate.bytes() +
           up.bytes() + shared_gate.bytes() + shared_up.bytes();
  }
};

// Buffers that live for one call; shared by all layers.
template <typename T>
struct MoeScratch {
  Matrix<T> rows, h, out;   // [T A, D], [N, I], [T A or N, D]
  Matrix<T> d_gate, d_up;   // [N, I]
  Matrix<T> d_row_weights;  // [N, 1]
  Matrix<T> row_weights;    // [T A, 1]
  // Not used when all experts are here.
  Matrix<T> arrived, d_arrived;  // [N, D]
  Matrix<T> arrived_weights;     // [N, 1]
};

// The first half: x [T, D], ids [T, A] -> all of `saved`. With an exchange, all ranks call both
// halves, those without tokens with T = 0: their experts are needed.
template <typename T>
void MoeGateUpForward(MatView<const T> x, MatView<const uint32_t> ids, const MoeParams<T>& params,
                      MoeSaved<T>& saved, MoeScratch<T>& scratch, const kernels::Context& ctx);
// The second: weights [T, A]; z [T, D] overwritten.
template <typename T>
void MoeForward(MatView<const T> weights, const MoeParams<T>& params, const MoeSaved<T>& saved,
                MatView<T> z, MoeScratch<T>& scratch, const kernels::Context& ctx);
// d_x and d_weights [T, A] overwritten. With an exchange, the gradient of an expert is summed for
// each source apart: Weight::GradientOf.
template <typename T>
void MoeBackward(MatView<const T> x, MatView<const T> weights, const MoeParams<T>& params,
                 const MoeSaved<T>& saved, MatView<const T> d_z, MatView<T> d_x,
                 MatView<T> d_weights, MoeScratch<T>& scratch, const kernels::Context& ctx);

}  // namespace cachalot::train
