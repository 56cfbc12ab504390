// SPDX-License-Identifier: Apache-2.0
// One walk over all tensors of a model, for two uses: binding a checkpoint and listing what a
// config implies. The walk (weights.cc) is the only statement of names, shapes and formats.
// [model.md 2]
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/model/config.h"
#include "cachalot/model/weights.h"
#include "cachalot/tensor/dtype.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::model {

// How the released checkpoints store a tensor. Loaders accept F32 or BF16 for any matrix.
enum class Storage : uint8_t {
  kDense,   // FP8 with 128x128 scales if the config says quantized
  kExpert,  // FP4 with 1x32 scales, or FP8 with 128x128 scales (-Base)
  kBf16,
  kF32,
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // `name` without the ".weight" suffix where the released name has one is spelled in full by the
  // caller. A source that fails remembers the first error and returns empty values from then on.
  virtual WeightView Matrix(const std::string& name, Storage storage, uint32_t rows,
                            uint32_t cols) = 0;
  virtual std::vector<float> Vector(const std::string& name, Storage storage,
                                    std::vector<uint64_t> shape) = 0;
  // [vocab, per_tok] I64 expert ids.
  virtual std::vector<uint32_t> ExpertTable(const std::string& name, uint32_t vocab,
                                            uint32_t per_tok, uint32_t num_experts) = 0;
};

// Walks the main model; `mtp` and DSpark tensors separately, since a checkpoint may lack them.
Weights WalkMain(const Config& config, TensorSource& source);
MtpWeights WalkMtp(const Config& config, TensorSource& source);
void WalkDspark(const Config& config, TensorSource& source);

}  // namespace cachalot::model
