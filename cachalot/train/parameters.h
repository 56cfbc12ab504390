// SPDX-License-Identifier: Apache-2.0
// The trainable state of a model: every tensor by its released name, as a float32 master beside its
// gradient. Optimizers, checkpoints and the backward pass share this one list.  [model.md 2]
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/model/config.h"
#include "cachalot/threading/aligned_buffer.h"

namespace cachalot::train {

// One tensor. `value` and `grad` are [rows, cols], row-major and contiguous; a 1-D tensor has
// rows = 1. Either is empty where it is not held: another rank does. T is float to train and double
// where finite differences are taken.
template <typename T>
struct ParameterT {
  std::string name;  // released spelling: "layers.0.attn.wq_a.weight"
  size_t rows = 0;
  size_t cols = 0;
  AlignedBuffer<T> value;
  // The backward pass adds into it. Of a distributed expert there is one for each rank's tokens,
  // one after the other; their sum takes the place of the first.
  AlignedBuffer<T> grad;

  size_t size() const { return rows * cols; }
  bool held() const { return value.size() > 0; }
};

// Expert ids of a hash layer, [rows, cols] = [V, A]. No gradient: they are drawn once.
struct ExpertTable {
  std::string name;  // "layers.0.ffn.gate.tid2eid"
  size_t rows = 0;
  size_t cols = 0;
  std::vector<uint32_t> ids;
};

// Pointers into `parameters` stay valid while the vector is not resized; nothing here resizes it
// after MakeParameters.
template <typename T>
struct ParameterSetT {
  std::vector<ParameterT<T>> parameters;  // main model, then mtp.0, in the order of model's walk
  std::vector<ExpertTable> tables;

  // Linear in the number of tensors: for setting up, not for a step. Null when absent.
  ParameterT<T>* Find(std::string_view name) {
    for (ParameterT<T>& p : parameters) {
      if (p.name == name) return &p;
    }
    return nullptr;
  }
  const ParameterT<T>* Find(std::string_view name) const {
    return const_cast<ParameterSetT*>(this)->Find(name);
  }
  const ExpertTable* FindTable(std::string_view name) const {
    for (const ExpertTable& table : tables) {
      if (table.name == name) return &table;
    }
    return nullptr;
  }
  void ZeroGradients() {
    for (ParameterT<T>& p : parameters) {
      for (T& g : p.grad.span()) g = T{0};
    }
  }
  size_t num_values() const {
    size_t total = 0;
    for (const ParameterT<T>& p : parameters) total += p.size();
    return total;
  }
};

using Parameter = ParameterT<float>;
using ParameterSet = ParameterSetT<float>;

// Names and shapes of every tensor that `config` implies for the main model and one MTP block (when
// it has one), none held; hash tables filled with zeros. Scales of quantized checkpoints are none.
// kInvalidArgument for a DSpark configuration, which has no training here.
Result<ParameterSet> ListParameters(const model::Config& config);
// The same, all held: values and gradients zero.
Result<ParameterSet> MakeParameters(const model::Config& config);

// Fills what is held of a set as a fresh model starts [V4 4.2 leaves this open;
// docs/design/train.md]: matrices N(0, 0.02), norms 1, mHC scales 0.01 with biases that make the
// start a plain residual, biases, sinks and position biases 0, tables drawn without repetition
// within a token. A pure function of (config, seed), whatever the order or the number of tensors
// before. `linear_residual_maps`: comb is its biases themselves (ResidualMap::kUnconstrained) and
// not what Sinkhorn makes of them.
void InitializeParameters(const model::Config& config, uint64_t seed, ParameterSet& set,
                          bool linear_residual_maps = false);

// Reads all tensors from an official-layout checkpoint (any dtype the loader widens); kNotFound,
// kInvalidArgument as BindWeights reports them.
Result<ParameterSet> LoadParameters(const std::string& dir);

// A copy with another element type; gradients start at zero.
ParameterSetT<double> ToDouble(const ParameterSet& set);

}  // namespace cachalot::train
