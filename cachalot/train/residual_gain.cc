// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/residual_gain.h"

#include <algorithm>
#include <cmath>

#include "cachalot/base/check.h"

namespace cachalot::train {
namespace {

constexpr size_t kTokens = 64;

double Gain(const std::vector<double>& map, size_t m) {
  double gain = 0;
  for (size_t i = 0; i < m; ++i) {
    double row = 0, column = 0;
    for (size_t k = 0; k < m; ++k) {
      row += std::abs(map[i * m + k]);
      column += std::abs(map[k * m + i]);
    }
    gain = std::max({gain, row, column});
  }
  return gain;
}

}  // namespace

template <typename T>
std::vector<double> CompositeGains(const std::vector<MatView<const T>>& maps, size_t m) {
  std::vector<double> gains(maps.size());
  if (maps.empty()) return gains;
  const size_t tokens = maps[0].rows;
  const size_t count = std::min(tokens, kTokens);
  std::vector<double> composite(m * m), next(m * m);
  for (size_t i = 0; i < count; ++i) {
    const size_t t = i * tokens / count;
    for (size_t l = 0; l < maps.size(); ++l) {
      CACHALOT_CHECK(maps[l].rows == tokens && maps[l].cols == m * m);
      const T* map = maps[l].Row(t).data();
      for (size_t j = 0; j < m; ++j) {
        for (size_t k = 0; k < m; ++k) {
          double sum = 0;
          for (size_t s = 0; s < m; ++s) sum += composite[j * m + s] * double{map[s * m + k]};
          next[j * m + k] = l == 0 ? double{map[j * m + k]} : sum;
        }
      }
      composite.swap(next);
      gains[l] += Gain(composite, m) / static_cast<double>(count);
    }
  }
  return gains;
}

template std::vector<double> CompositeGains(const std::vector<MatView<const float>>&, size_t);
template std::vector<double> CompositeGains(const std::vector<MatView<const double>>&, size_t);

}  // namespace cachalot::train
