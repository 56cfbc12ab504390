// SPDX-License-Identifier: Apache-2.0
// Random operands for the tests and benchmarks of matmul.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "cachalot/base/rng.h"
#include "cachalot/kernels/matmul.h"

namespace cachalot::kernels {

// A weight with its own bytes, placed at an odd address: checkpoints align nothing.
struct TestWeight {
  std::vector<uint8_t> data;
  std::vector<uint8_t> scales;
  WeightView view;
};

inline const char* WeightKindName(WeightKind kind) {
  constexpr const char* kNames[] = {"F32", "BF16", "FP8", "FP4"};
  return kNames[static_cast<size_t>(kind)];
}

inline float RandomFloat(uint64_t seed, uint64_t i) {
  return static_cast<float>(2.0 * UniformOpen(CounterRandom(seed, i, 0)) - 1.0);
}

// Finite codes of every size; E8M0 scales 2^-8 .. 2^-1.
inline void FillRandom(TestWeight& w, uint64_t seed) {
  const WeightKind kind = w.view.kind;
  uint8_t* data = w.data.data() + 1;
  const size_t count = size_t{w.view.rows} * w.view.row_bytes();
  for (size_t i = 0; i < count; ++i) data[i] = static_cast<uint8_t>(CounterRandom(seed, i, 1));
  const size_t elements = size_t{w.view.rows} * w.view.cols;
  for (size_t i = 0; i < elements && kind == WeightKind::kF32; ++i) {
    const float value = RandomFloat(seed, i);
    std::memcpy(data + 4 * i, &value, 4);
  }
  for (size_t i = 0; i < elements && kind == WeightKind::kBF16; ++i) {
    const BF16 value = ToBF16(RandomFloat(seed, i));
    std::memcpy(data + 2 * i, &value, 2);
  }
  for (size_t i = 0; i < elements && kind == WeightKind::kFP8; ++i) {
    if ((data[i] & 0x7Fu) == 0x7Fu) data[i] ^= 1u;
  }
  for (size_t i = 0; i < w.scales.size(); ++i) {
    w.scales[i] = static_cast<uint8_t>(119 + CounterRandom(seed, i, 2) % 8);
  }
}

inline TestWeight RandomWeight(WeightKind kind, uint32_t rows, uint32_t cols, uint64_t seed) {
  TestWeight w;
  w.view.kind = kind;
  w.view.rows = rows;
  w.view.cols = cols;
  w.data.resize(1 + size_t{rows} * w.view.row_bytes());
  if (kind == WeightKind::kFP4) w.scales.resize(size_t{rows} * (cols / kFP4Block));
  if (kind == WeightKind::kFP8) {
    w.scales.resize(size_t{(rows + 127) / 128} * ((cols + 127) / 128));
  }
  FillRandom(w, seed);
  w.view.data = w.data.data() + 1;
  w.view.scales = w.scales.data();
  return w;
}

template <typename X>
std::vector<X> RandomVector(size_t size, uint64_t seed) {
  std::vector<X> x(size);
  for (size_t i = 0; i < size; ++i) {
    const float value = RandomFloat(seed, i);
    if constexpr (std::is_same_v<X, float>) {
      x[i] = value;
    } else {
      x[i] = ToBF16(value);
    }
  }
  return x;
}

}  // namespace cachalot::kernels
