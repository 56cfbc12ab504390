// SPDX-License-Identifier: Apache-2.0
// Sinkhorn normalization of mHC's residual map for kSinkhornLanes tokens side by side: the matrices
// are tiny, so the vector runs over tokens.  [model.md 3.3.6]
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace cachalot::train {

inline constexpr size_t kSinkhornLanes = 16;

// One [M, M] matrix a token, element (j, k) of lane l at [j M + k][l].
template <typename T>
using LaneMatrix = T (*)[kSinkhornLanes];

// Forward with all iterates kept, then backward through them.
template <typename T>
class Sinkhorn {
 public:
  // Elements of type T of `memory`.
  static size_t MemorySize(size_t m, size_t iters) {
    return (2 * iters + 1) * (m * m + m) * kSinkhornLanes;
  }
  Sinkhorn(size_t m, size_t iters, T eps, T* memory)
      : m_(m), iters_(iters), eps_(eps), memory_(memory) {}

  // logits -> doubly stochastic. The result lies in result().
  void Forward(const T (*logits)[kSinkhornLanes]) {
    Softmax(logits, State(0), Sums(0));
    Normalize(/*rows=*/false, 1);
    for (size_t i = 1; i < iters_; ++i) {
      Normalize(/*rows=*/true, 2 * i);
      Normalize(/*rows=*/false, 2 * i + 1);
    }
  }
  const T (*result() const)[kSinkhornLanes] { return State(2 * iters_ - 1); }

  // d: gradient of the result in, gradient of the logits out. After Forward.
  void Backward(T (*d)[kSinkhornLanes]) {
    for (size_t i = iters_ - 1; i > 0; --i) {
      NormalizeBackward(/*rows=*/false, 2 * i + 1, d);
      NormalizeBackward(/*rows=*/true, 2 * i, d);
    }
    NormalizeBackward(/*rows=*/false, 1, d);
    // softmax + eps: p = state - eps; d_logit = p (d - sum_k d p).
    const auto state = State(0);
    for (size_t j = 0; j < m_; ++j) {
      T pull[kSinkhornLanes] = {};
      for (size_t k = 0; k < m_; ++k) {
        for (size_t l = 0; l < kSinkhornLanes; ++l) {
          pull[l] += d[j * m_ + k][l] * (state[j * m_ + k][l] - eps_);
        }
      }
      for (size_t k = 0; k < m_; ++k) {
        for (size_t l = 0; l < kSinkhornLanes; ++l) {
          d[j * m_ + k][l] = (state[j * m_ + k][l] - eps_) * (d[j * m_ + k][l] - pull[l]);
        }
      }
    }
  }

 private:
  LaneMatrix<T> State(size_t i) const {
    return reinterpret_cast<LaneMatrix<T>>(memory_ + i * (m_ * m_ + m_) * kSinkhornLanes);
  }
  // 1 / (sum + eps) of each row or column that step i divided by.
  LaneMatrix<T> Sums(size_t i) const { return State(i) + m_ * m_; }

  void Softmax(const T (*logits)[kSinkhornLanes], LaneMatrix<T> out, LaneMatrix<T> /*sums*/) {
    for (size_t j = 0; j < m_; ++j) {
      T top[kSinkhornLanes];
      T sum[kSinkhornLanes] = {};
      std::copy_n(logits[j * m_], kSinkhornLanes, top);
      for (size_t k = 1; k < m_; ++k) {
        for (size_t l = 0; l < kSinkhornLanes; ++l) {
          top[l] = std::max(top[l], logits[j * m_ + k][l]);
        }
      }
      for (size_t k = 0; k < m_; ++k) {
        for (size_t l = 0; l < kSinkhornLanes; ++l) {
          const T e = std::exp(logits[j * m_ + k][l] - top[l]);
          out[j * m_ + k][l] = e;
          sum[l] += e;
        }
      }
      for (size_t k = 0; k < m_; ++k) {
        for (size_t l = 0; l < kSinkhornLanes; ++l) {
          out[j * m_ + k][l] = out[j * m_ + k][l] / sum[l] + eps_;
        }
      }
    }
  }

  // State i from state i - 1: each row (or column) divided by its sum + eps.
  void Normalize(bool rows, size_t i) {
    const auto in = State(i - 1);
    const auto out = State(i);
    const auto inverse = Sums(i);
    const size_t outer = rows ? m_ : 1;
    const size_t inner = rows ? 1 : m_;
    for (size_t g = 0; g < m_; ++g) {
      T sum[kSinkhornLanes] = {};
      for (size_t e = 0; e < m_; ++e) {
        for (size_t l = 0; l < kSinkhornLanes; ++l) sum[l] += in[g * outer + e * inner][l];
      }
      for (size_t l = 0; l < kSinkhornLanes; ++l) inverse[g][l] = T{1} / (sum[l] + eps_);
      for (size_t e = 0; e < m_; ++e) {
        for (size_t l = 0; l < kSinkhornLanes; ++l) {
          out[g * outer + e * inner][l] = in[g * outer + e * inner][l] * inverse[g][l];
        }
      }
    }
  }

  // out = in / s, s = sum(in) + eps:  d_in = (d_out - sum(d_out out)) / s.
  void NormalizeBackward(bool rows, size_t i, T (*d)[kSinkhornLanes]) {
    const auto out = State(i);
    const auto inverse = Sums(i);
    const size_t outer = rows ? m_ : 1;
    const size_t inner = rows ? 1 : m_;
    for (size_t g = 0; g < m_; ++g) {
      T pull[kSinkhornLanes] = {};
      for (size_t e = 0; e < m_; ++e) {
        const size_t at = g * outer + e * inner;
        for (size_t l = 0; l < kSinkhornLanes; ++l) pull[l] += d[at][l] * out[at][l];
      }
      for (size_t e = 0; e < m_; ++e) {
        const size_t at = g * outer + e * inner;
        for (size_t l = 0; l < kSinkhornLanes; ++l) {
          d[at][l] = (d[at][l] - pull[l]) * inverse[g][l];
        }
      }
    }
  }

  size_t m_;
  size_t iters_;
  T eps_;
  T* memory_;
};

}  // namespace cachalot::train
