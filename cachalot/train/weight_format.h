// SPDX-License-Identifier: Apache-2.0
// Float32 masters into the formats of released checkpoints. Quantization-aware training and export
// use these same functions, so that what was trained is what is written. [model.md 2.5, 3.6]
#pragma once

#include <cstdint>
#include <vector>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::train {

// `codes` and `scales` as WeightView lays them out; E8M0 scales.
struct QuantizedMatrix {
  std::vector<uint8_t> codes;
  std::vector<uint8_t> scales;
};

// E4M3 with a power-of-two scale for each 128 x 128 block.
QuantizedMatrix QuantizeFp8(MatView<const float> w, const kernels::Context& ctx);
// E2M1, two a byte, with a power-of-two scale for each 32 columns of a row. w.cols % 32 == 0.
QuantizedMatrix QuantizeFp4(MatView<const float> w, const kernels::Context& ctx);

// What the stored format reads back as, float32; `out` may be `w`.
void RoundTripFp8Weights(MatView<const float> w, MatView<float> out, const kernels::Context& ctx);
void RoundTripFp4Weights(MatView<const float> w, MatView<float> out, const kernels::Context& ctx);
void RoundTripBf16Weights(MatView<const float> w, MatView<float> out, const kernels::Context& ctx);

}  // namespace cachalot::train
