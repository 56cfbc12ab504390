// SPDX-License-Identifier: Apache-2.0
// The two JSON texts of a checkpoint, read as events: a tree of ordered_json looks every new key up
// by walking the object, which is quadratic in the 145,000 tensors of Pro.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::checkpoint {

// One tensor of a safetensors header, as written there; types checked, values not.
struct HeaderEntry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> data_offsets;  // two
};

// `file` starts every message. Refused: anything but an object of objects with dtype, shape and
// data_offsets, duplicate names, names with control characters or above 1,024 bytes.
Result<std::vector<HeaderEntry>> ReadHeaderJson(std::string_view text, std::string_view file);

struct WeightMapEntry {
  std::string tensor;
  std::string shard;  // a plain file name
};
// The weight_map of model.safetensors.index.json. Names that leave the folder are refused.
Result<std::vector<WeightMapEntry>> ReadWeightMap(std::string_view text, std::string_view file);

// `text` for a message: escaped to one line of ASCII, cut if long.
std::string Shown(std::string_view text);

}  // namespace cachalot::checkpoint
