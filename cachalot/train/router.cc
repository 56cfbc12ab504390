// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/router.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cachalot/train/reduce.h"

namespace cachalot::train {
namespace {

// Beyond 20 the released code takes softplus(z) = z.
constexpr double kLinearFrom = 20.0;

template <typename T>
T Score(T z) {
  return std::sqrt(z > T{kLinearFrom} ? z : std::log1p(std::exp(z)));
}

// d sqrt(softplus(z)) / dz = sigmoid(z) / (2 s).
template <typename T>
T ScoreSlope(T z, T score) {
  const T sigmoid = z > T{kLinearFrom} ? T{1} : T{1} / (T{1} + std::exp(-z));
  return sigmoid / (T{2} * score);
}

template <typename T>
void SelectTop(std::span<const T> values, std::span<uint32_t> ids) {
  for (size_t a = 0; a < ids.size(); ++a) {
    uint32_t best = 0;
    bool found = false;
    for (uint32_t e = 0; e < values.size(); ++e) {
      if (std::find(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(a), e) !=
          ids.begin() + static_cast<ptrdiff_t>(a)) {
        continue;
      }
      // Strict: a tie keeps the lower id.
      if (!found || values[e] > values[best]) best = e;
      found = true;
    }
    ids[a] = best;
  }
  std::ranges::sort(ids);
}

}  // namespace

template <typename T>
void ChooseExperts(MatView<const T> z, const T* bias, MatView<uint32_t> ids,
                   const kernels::Context& ctx) {
  ForTokenBlocks(z.rows, ctx, [&](size_t begin, size_t end) {
    std::vector<T> values(z.cols);
    for (size_t t = begin; t < end; ++t) {
      for (size_t e = 0; e < z.cols; ++e) {
        values[e] = Score(z.Row(t)[e]) + (bias == nullptr ? T{0} : bias[e]);
      }
      SelectTop<T>(values, ids.Row(t));
    }
  });
}

template <typename T>
void RoutingWeightsForward(MatView<const T> z, MatView<const uint32_t> ids, double scaling,
                           MatView<T> weights, const kernels::Context& ctx) {
  ForTokenBlocks(z.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      T sum = T{0};
      for (size_t a = 0; a < ids.cols; ++a) {
        weights.Row(t)[a] = Score(z.Row(t)[ids.Row(t)[a]]);
        sum += weights.Row(t)[a];
      }
      for (T& w : weights.Row(t)) w = w / sum * static_cast<T>(scaling);
    }
  });
}

template <typename T>
void RoutingWeightsBackward(MatView<const T> z, MatView<const uint32_t> ids, double scaling,
                            MatView<const T> d_weights, MatView<T> d_z,
                            const kernels::Context& ctx) {
  const T c = static_cast<T>(scaling);
  ForTokenBlocks(z.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      std::ranges::fill(d_z.Row(t), T{0});
      T sum = T{0};
      T pull = T{0};  // sum_b d_weight_b s_b
      for (size_t a = 0; a < ids.cols; ++a) {
        const T s = Score(z.Row(t)[ids.Row(t)[a]]);
        sum += s;
        pull += d_weights.Row(t)[a] * s;
      }
      for (size_t a = 0; a < ids.cols; ++a) {
        const uint32_t e = ids.Row(t)[a];
        const T logit = z.Row(t)[e];
        const T d_score = c / sum * (d_weights.Row(t)[a] - pull / sum);
        d_z.Row(t)[e] = d_score * ScoreSlope(logit, Score(logit));
      }
    }
  });
}

namespace {

// One sample: its f, then its loss and gradient.
template <typename T>
double BalanceSample(MatView<const T> z, MatView<const uint32_t> ids, size_t begin, size_t end,
                     double scale, MatView<T> d_z) {
  const size_t experts = z.cols;
  const double tokens = static_cast<double>(end - begin);
  std::vector<T> f(experts, T{0});
  std::vector<T> scores(experts);
  for (size_t t = begin; t < end; ++t) {
    for (const uint32_t e : ids.Row(t)) f[e] += T{1};
  }
  const double share = static_cast<double>(experts) / (static_cast<double>(ids.cols) * tokens);
  for (T& v : f) v *= static_cast<T>(share);
  double loss = 0;
  for (size_t t = begin; t < end; ++t) {
    T sum = T{0};
    T weighted = T{0};
    for (size_t e = 0; e < experts; ++e) {
      scores[e] = Score(z.Row(t)[e]);
      sum += scores[e];
      weighted += f[e] * scores[e];
    }
    const T mean = weighted / sum;
    loss += static_cast<double>(mean) / tokens;
    if (scale == 0) continue;
    // d (sum_i f_i s_i / sum_j s_j) / d s_i = (f_i - mean) / sum.
    const T factor = static_cast<T>(scale / tokens) / sum;
    for (size_t e = 0; e < experts; ++e) {
      d_z.Row(t)[e] += factor * (f[e] - mean) * ScoreSlope(z.Row(t)[e], scores[e]);
    }
  }
  return loss;
}

}  // namespace

template <typename T>
double BalanceLoss(MatView<const T> z, MatView<const uint32_t> ids, const TrainBatch& batch,
                   double scale, MatView<T> d_z, const kernels::Context& ctx) {
  std::vector<double> losses(batch.num_samples());
  ctx.pool->ParallelFor(losses.size(), [&](size_t s, size_t) {
    losses[s] = BalanceSample(z, ids, batch.sample_begin[s], batch.sample_begin[s + 1], scale, d_z);
  });
  double total = 0;
  for (const double loss : losses) total += loss;
  return total;
}

#define CACHALOT_INSTANTIATE(T)                                                                \
  template void ChooseExperts(MatView<const T>, const T*, MatView<uint32_t>,                   \
                              const kernels::Context&);                                        \
  template void RoutingWeightsForward(MatView<const T>, MatView<const uint32_t>, double,       \
                                      MatView<T>, const kernels::Context&);                    \
  template void RoutingWeightsBackward(MatView<const T>, MatView<const uint32_t>, double,      \
                                       MatView<const T>, MatView<T>, const kernels::Context&); \
  template double BalanceLoss(MatView<const T>, MatView<const uint32_t>, const TrainBatch&,    \
                              double, MatView<T>, const kernels::Context&);
CACHALOT_INSTANTIATE(float)
CACHALOT_INSTANTIATE(double)
#undef CACHALOT_INSTANTIATE

}  // namespace cachalot::train
