// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/norm.h"

#include <cmath>

#include "cachalot/kernels/rope.h"
#include "cachalot/train/reduce.h"
#include "cachalot/train/row_ops.h"

namespace cachalot::train {

template <typename T>
void RmsNormForward(MatView<const T> x, const Weight<T>& w, T eps, MatView<T> y,
                    NormSaved<T>& saved, const kernels::Context& ctx) {
  const size_t width = x.cols;
  T* inverse_rms = saved.inverse_rms.Resize(x.rows, 1).data;
  const T* weight = w.value.data;
  ForTokenBlocks(x.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const T* from = x.Row(t).data();
      T* to = y.Row(t).data();
      const T r = T{1} / std::sqrt(DotRow(from, from, width, ctx) / static_cast<T>(width) + eps);
      inverse_rms[t] = r;
      if (weight == nullptr) {
        for (size_t i = 0; i < width; ++i) to[i] = from[i] * r;
      } else {
        for (size_t i = 0; i < width; ++i) to[i] = from[i] * r * weight[i];
      }
    }
  });
}

template <typename T>
void RmsNormBackward(MatView<const T> x, const Weight<T>& w, const NormSaved<T>& saved,
                     MatView<const T> d_y, MatView<T> d_x, const kernels::Context& ctx,
                     Write write) {
  const size_t width = x.cols;
  const T* inverse_rms = saved.inverse_rms.data();
  const T* weight = w.value.data;
  const auto row = [&](size_t t, T* g, T* d_weight) {
    const T* from = x.Row(t).data();
    const T* dy = d_y.Row(t).data();
    T* dx = d_x.Row(t).data();
    const T r = inverse_rms[t];
    if (weight == nullptr) {
      std::copy_n(dy, width, g);
    } else {
      for (size_t i = 0; i < width; ++i) g[i] = dy[i] * weight[i];
      for (size_t i = 0; i < width; ++i) d_weight[i] += dy[i] * from[i] * r;
    }
    const T pull = r * r * DotRow<T>(g, from, width, ctx) / static_cast<T>(width);
    if (write == Write::kOverwrite) {
      for (size_t i = 0; i < width; ++i) dx[i] = r * (g[i] - from[i] * pull);
    } else {
      for (size_t i = 0; i < width; ++i) dx[i] += r * (g[i] - from[i] * pull);
    }
  };
  SumOverTokens(x.rows, weight == nullptr ? 0 : width, w.grad.data, ctx,
                [&](size_t begin, size_t end, T* d_weight, size_t worker) {
                  T* g = reinterpret_cast<T*>(ctx.pool->WorkerScratch(worker, width * sizeof(T)));
                  for (size_t t = begin; t < end; ++t) row(t, g, d_weight);
                });
}

template <typename T>
RotaryTable<T> MakeRotaryTable(std::span<const float> frequencies, size_t positions) {
  std::vector<uint32_t> index(positions);
  for (size_t p = 0; p < positions; ++p) index[p] = static_cast<uint32_t>(p);
  Matrix<float> cos(positions, frequencies.size());
  Matrix<float> sin(positions, frequencies.size());
  kernels::RopeAngles(frequencies, index, cos.view(), sin.view());
  RotaryTable<T> table{{positions, frequencies.size()}, {positions, frequencies.size()}};
  for (size_t i = 0; i < positions * frequencies.size(); ++i) {
    table.cos.data()[i] = T{cos.data()[i]};
    table.sin.data()[i] = T{sin.data()[i]};
  }
  return table;
}

template <typename T>
void Rotate(MatView<T> x, size_t heads, std::span<const uint32_t> positions,
            const RotaryTable<T>& table, bool inverse, const kernels::Context& ctx) {
  const size_t pairs = table.cos.cols();
  CACHALOT_CHECK(x.rows == positions.size() * heads && x.cols >= 2 * pairs);
  const size_t offset = x.cols - 2 * pairs;
  const T sign = inverse ? T{-1} : T{1};
  ForTokenBlocks(positions.size(), ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const T* cos = table.cos.view().Row(positions[t]).data();
      const T* sin = table.sin.view().Row(positions[t]).data();
      for (size_t h = 0; h < heads; ++h) {
        T* v = x.Row(t * heads + h).data() + offset;
        for (size_t i = 0; i < pairs; ++i) {
          const T a = v[2 * i];
          const T b = v[2 * i + 1];
          v[2 * i] = a * cos[i] - b * (sign * sin[i]);
          v[2 * i + 1] = a * (sign * sin[i]) + b * cos[i];
        }
      }
    }
  });
}

#define CACHALOT_INSTANTIATE(T)                                                                    \
  template void RmsNormForward(MatView<const T>, const Weight<T>&, T, MatView<T>, NormSaved<T>&,   \
                               const kernels::Context&);                                           \
  template void RmsNormBackward(MatView<const T>, const Weight<T>&, const NormSaved<T>&,           \
                                MatView<const T>, MatView<T>, const kernels::Context&, Write);     \
  template RotaryTable<T> MakeRotaryTable(std::span<const float>, size_t);                         \
  template void Rotate(MatView<T>, size_t, std::span<const uint32_t>, const RotaryTable<T>&, bool, \
                       const kernels::Context&);
CACHALOT_INSTANTIATE(float)
CACHALOT_INSTANTIATE(double)
#undef CACHALOT_INSTANTIATE

}  // namespace cachalot::train
