// SPDX-License-Identifier: Apache-2.0
// Attention of all heads of a token over one shared stream of entries: the window, then compressed
// entries; one softmax with a sink.  [V4 2.3; model.md 4.4, 4.5]
//
//   s_i = scale * q_h . row_i;  o_h = sum_i exp(s_i - m) row_i / (sum_i exp(s_i - m) + exp(sink_h -
//   m))
//
// Fixed order [design.md 3]: window positions ascending, then compressed entries ascending. Softmax
// tiles are cut at absolute multiples of 64 (window: positions; dense: entry indices; selected:
// list indices), masked lanes contribute 0. Compressed entries come in partitions of 1,024, each
// with its own maximum and sums; partials (window first) merge in order. So the result for a token
// does not depend on T, on how a prompt was cut into chunks, or on threads.
#pragma once

#include <cstdint>
#include <span>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/kv_layout.h"

namespace cachalot::kernels {

// One query token.
struct AttentionQuery {
  const float* q = nullptr;            // [H, d], rotated
  float* out = nullptr;                // [H, d], before the inverse rotation; may be q
  uint32_t position = 0;               // t: sees window positions max(b, t - W + 1) .. t,
  uint32_t window_begin = 0;           // b <= t: older rows do not exist
  ConstKvRows window;                  // position p at row p % capacity; capacity >= W
  CompressedView compressed;           // unused when num_compressed == 0
  uint32_t num_compressed = 0;         // entries 0 .. num_compressed-1, or the length of `selected`
  const uint32_t* selected = nullptr;  // ascending entry indices; null: dense
};

struct AttentionArgs {
  std::span<const AttentionQuery> queries;
  uint32_t num_heads = 0;       // H
  uint32_t head_dim = 0;        // d
  uint32_t sliding_window = 0;  // W
  std::span<const float> sink;  // [H]
  float scale = 0.0f;
};

// Parallel over (token, head group). Cost 4 H S d flop a token, S d' bytes read once a head group,
// S = entries visible. Native entries; the reference path also takes the f32 format.
void Attention(const AttentionArgs& args, const Context& ctx);

}  // namespace cachalot::kernels
