// SPDX-License-Identifier: Apache-2.0
// Round trips of activations and the codec of KV entries.  [model.md 3.6, 4.2, 4.7, 4.10]
#pragma once

#include <cstdint>
#include <span>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/kv_layout.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::kernels {

// FP8 quantization of blocks of 128 and back, row by row (`official` numerics: inputs of FP8 / FP4
// products). out may be x. A last block shorter than 128 is a block of its own.
void RoundTripFp8(MatView<const float> x, MatView<float> out, const Context& ctx);

// FP4 quantization of blocks of 32 and back, in place (index queries). cols % 32 == 0.
void RoundTripFp4(MatView<float> x, const Context& ctx);

// v <- H v / sqrt(n), H the natural (Sylvester) Hadamard matrix, every row of x. cols = n is a
// power of two. float32, fixed butterfly order.
void Hadamard(MatView<float> x, const Context& ctx);

// Writes entry [d] to `row` of `rows`: FP8 per 64 on the first d - rd dims, BF16 on the rest
// (native), or float32 (f32).
void StoreKvEntry(std::span<const float> entry, const KvRows& rows, size_t row);
// Writes index key [key_dim] (after Hadamard): FP4 per 32 (native) or float32.
void StoreIndexKey(std::span<const float> key, const KvRows& rows, size_t row);
// The values attention reads back, as float32.
void LoadKvEntry(const ConstKvRows& rows, size_t row, std::span<float> entry);
void LoadIndexKey(const ConstKvRows& rows, size_t row, std::span<float> key);

}  // namespace cachalot::kernels
