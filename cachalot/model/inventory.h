// SPDX-License-Identifier: Apache-2.0
// What a configuration implies, without any weights: tensors, bytes, parameters, cache cost.
// [model.md 2, 8; published totals in inventory_test.cc]
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cachalot/model/config.h"
#include "cachalot/tensor/dtype.h"

namespace cachalot::model {

// One tensor as a released checkpoint of this configuration stores it.
struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
  bool is_scale = false;  // quantization scale, not a parameter

  uint64_t bytes() const;
};

// Main tensors, then MTP or DSpark ones, in the order of the walk. 69,187 for Flash.
std::vector<StoredTensor> ListTensors(const Config& config);

struct Totals {
  uint64_t tensors = 0;
  uint64_t bytes = 0;
  uint64_t parameters = 0;             // main model; scales and tid2eid are none
  uint64_t parameters_with_draft = 0;  // and MTP or DSpark stages
  uint64_t activated = 0;              // per token: main - embed - routed experts not chosen
  std::map<std::string, uint64_t> tensors_by_dtype;
};
Totals ComputeTotals(const Config& config);

}  // namespace cachalot::model
