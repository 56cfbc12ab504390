// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/hyper.h"

#include <cmath>

#include "cachalot/train/linear.h"
#include "cachalot/train/reduce.h"
#include "cachalot/train/row_ops.h"
#include "cachalot/train/sinkhorn.h"

namespace cachalot::train {
namespace {

constexpr size_t kMaxStreams = 16;  // as kernels::HcPre

template <typename T>
T Sigmoid(T x) {
  return T{1} / (T{1} + std::exp(-x));
}

// fn u and the inverse RMS of every token.
template <typename T>
void MixInputs(MatView<const T> streams, const HyperWeights<T>& w, const HyperConfig& config,
               HyperSaved<T>& saved, const kernels::Context& ctx) {
  LinearForward(streams, w.fn, saved.fn_u.Resize(streams.rows, w.fn.value.rows), ctx);
  T* inverse_rms = saved.inverse_rms.Resize(streams.rows, 1).data;
  ForTokenBlocks(streams.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const T* u = streams.Row(t).data();
      const T mean = DotRow(u, u, streams.cols, ctx) / static_cast<T>(streams.cols);
      inverse_rms[t] = T{1} / std::sqrt(mean + static_cast<T>(config.norm_eps));
    }
  });
}

template <typename T>
void MixStreams(const T* streams, const T* pre, size_t m, std::span<T> y) {
  std::ranges::fill(y, T{0});
  for (size_t j = 0; j < m; ++j) {
    const T* x = streams + j * y.size();
    for (size_t i = 0; i < y.size(); ++i) y[i] += pre[j] * x[i];
  }
}

// The logits of comb of kSinkhornLanes tokens from t on; lanes past `end` repeat the last token.
template <typename T>
void GatherLogits(const HyperWeights<T>& w, const HyperSaved<T>& saved, size_t m, size_t t,
                  size_t end, T (*logits)[kSinkhornLanes]) {
  for (size_t l = 0; l < kSinkhornLanes; ++l) {
    const size_t token = std::min(t + l, end - 1);
    const T* mix = saved.fn_u.view().Row(token).data() + 2 * m;
    const T rs = saved.inverse_rms.data()[token];
    for (size_t i = 0; i < m * m; ++i) {
      logits[i][l] = mix[i] * rs * w.scale.value.data[2] + w.base.value.data[2 * m + i];
    }
  }
}

// Scratch of a worker: the iterates, then one more lane matrix.
template <typename T>
struct SinkhornScratch {
  SinkhornScratch(const kernels::Context& ctx, size_t worker, size_t m, const HyperConfig& config) {
    const size_t states = Sinkhorn<T>::MemorySize(m, config.sinkhorn_iters);
    const size_t bytes = (states + m * m * kSinkhornLanes) * sizeof(T);
    memory = reinterpret_cast<T*>(ctx.pool->WorkerScratch(worker, bytes));
    extra = reinterpret_cast<LaneMatrix<T>>(memory + states);
  }
  T* memory;
  LaneMatrix<T> extra;
};

// comb of tokens [begin, end) as kUnconstrained has it.
template <typename T>
void LinearComb(const HyperWeights<T>& w, size_t m, size_t begin, size_t end,
                HyperSaved<T>& saved) {
  for (size_t t = begin; t < end; ++t) {
    const T* mix = saved.fn_u.view().Row(t).data() + 2 * m;
    const T rs = saved.inverse_rms.data()[t];
    T* comb = saved.comb.view().Row(t).data();
    for (size_t i = 0; i < m * m; ++i) {
      comb[i] = mix[i] * rs * w.scale.value.data[2] + w.base.value.data[2 * m + i];
    }
  }
}

template <typename T>
void CombForward(const HyperWeights<T>& w, const HyperConfig& config, size_t begin, size_t end,
                 const SinkhornScratch<T>& scratch, HyperSaved<T>& saved) {
  const size_t m = config.streams;
  if (config.map == ResidualMap::kUnconstrained) return LinearComb(w, m, begin, end, saved);
  Sinkhorn<T> sinkhorn(m, config.sinkhorn_iters, static_cast<T>(config.hc_eps), scratch.memory);
  for (size_t t = begin; t < end; t += kSinkhornLanes) {
    GatherLogits(w, saved, m, t, end, scratch.extra);
    sinkhorn.Forward(scratch.extra);
    for (size_t l = 0; l < kSinkhornLanes && t + l < end; ++l) {
      T* comb = saved.comb.view().Row(t + l).data();
      for (size_t i = 0; i < m * m; ++i) comb[i] = sinkhorn.result()[i][l];
    }
  }
}

// d_mix [.., 2 M + i] = gradient of comb's logits, for the tokens of a block.
template <typename T>
void CombBackward(const HyperWeights<T>& w, const HyperConfig& config, size_t begin, size_t end,
                  const HyperSaved<T>& saved, const HyperGradients<T>& gradients,
                  const SinkhornScratch<T>& scratch, MatView<T> d_logits) {
  const size_t m = config.streams;
  if (config.map == ResidualMap::kUnconstrained) {
    for (size_t t = begin; t < end; ++t) {
      std::copy_n(gradients.d_comb.view().Row(t).data(), m * m, d_logits.Row(t).data() + 2 * m);
    }
    return;
  }
  Sinkhorn<T> sinkhorn(m, config.sinkhorn_iters, static_cast<T>(config.hc_eps), scratch.memory);
  for (size_t t = begin; t < end; t += kSinkhornLanes) {
    GatherLogits(w, saved, m, t, end, scratch.extra);
    sinkhorn.Forward(scratch.extra);
    for (size_t l = 0; l < kSinkhornLanes; ++l) {
      const T* d_comb = gradients.d_comb.view().Row(std::min(t + l, end - 1)).data();
      for (size_t i = 0; i < m * m; ++i) scratch.extra[i][l] = d_comb[i];
    }
    sinkhorn.Backward(scratch.extra);
    for (size_t l = 0; l < kSinkhornLanes && t + l < end; ++l) {
      T* d = d_logits.Row(t + l).data() + 2 * m;
      for (size_t i = 0; i < m * m; ++i) d[i] = scratch.extra[i][l];
    }
  }
}

// Which scale multiplies mix[i].
size_t ScaleOf(size_t i, size_t m) { return std::min<size_t>(i / m, 2); }

// From the gradients of the logits of all maps (in d_mix) to those of fn u (in place), scale, base
// and the inverse RMS. `partial`: base, then scale. Returns d_inverse_rms.
template <typename T>
T MixBackward(const HyperWeights<T>& w, const HyperSaved<T>& saved, size_t t, size_t m,
              std::span<T> d_mix, T* partial) {
  const T* fn_u = saved.fn_u.view().Row(t).data();
  const T rs = saved.inverse_rms.data()[t];
  T d_rs = T{0};
  for (size_t i = 0; i < d_mix.size(); ++i) {
    const size_t s = ScaleOf(i, m);
    const T d_logit = d_mix[i];
    partial[i] += d_logit;
    partial[d_mix.size() + s] += d_logit * fn_u[i] * rs;
    const T d = d_logit * w.scale.value.data[s];
    d_rs += d * fn_u[i];
    d_mix[i] = d * rs;
  }
  return d_rs;
}

// d_streams[t] += pre d_y and the part through the inverse RMS:
// d rs / d u_i = -rs^3 u_i / n.
template <typename T>
void AddToStreams(const T* streams, const T* pre, T rs, T d_rs, std::span<const T> d_y, size_t m,
                  std::span<T> d_streams) {
  const T pull = d_rs * rs * rs * rs / static_cast<T>(d_streams.size());
  const size_t width = d_y.size();
  for (size_t j = 0; j < m; ++j) {
    const T* u = streams + j * width;
    T* d = d_streams.data() + j * width;
    for (size_t i = 0; i < width; ++i) d[i] += pre[j] * d_y[i] - pull * u[i];
  }
}

// Shared by both backward passes: `logits(begin, end, d_mix, worker)` fills what lies behind the
// pre part of d_mix.
template <typename T, typename Logits>
void PreBackward(MatView<const T> streams, const HyperWeights<T>& w, const HyperConfig& config,
                 const HyperSaved<T>& saved, MatView<const T> d_y, Matrix<T>& d_mix,
                 MatView<T> d_streams, const kernels::Context& ctx, Logits&& logits) {
  const size_t m = config.streams;
  const size_t rows = w.fn.value.rows;
  const size_t width = d_y.cols;
  const size_t scales = w.scale.value.cols;
  const T eps = static_cast<T>(config.hc_eps);
  d_mix.Resize(streams.rows, rows);
  AlignedBuffer<T> sums(rows + scales);
  SumOverTokens(streams.rows, rows + scales, sums.data(), ctx,
                [&](size_t begin, size_t end, T* partial, size_t worker) {
                  logits(begin, end, d_mix.view(), worker);
                  for (size_t t = begin; t < end; ++t) {
                    const T* u = streams.Row(t).data();
                    const T* pre = saved.pre.view().Row(t).data();
                    const std::span<T> d = d_mix.view().Row(t);
                    for (size_t j = 0; j < m; ++j) {
                      const T s = pre[j] - eps;
                      d[j] =
                          DotRow<T>(d_y.Row(t).data(), u + j * width, width, ctx) * s * (T{1} - s);
                    }
                    const T d_rs = MixBackward(w, saved, t, m, d, partial);
                    AddToStreams(u, pre, saved.inverse_rms.data()[t], d_rs,
                                 std::span<const T>(d_y.Row(t)), m, d_streams.Row(t));
                  }
                });
  for (size_t i = 0; i < rows; ++i) w.base.grad.data[i] += sums[i];
  for (size_t i = 0; i < scales; ++i) w.scale.grad.data[i] += sums[rows + i];
  LinearBackward<T>(streams, w.fn, d_mix.view(), d_streams, ctx);
}

// A plain residual in M equal streams.
template <typename T>
void IdentityMaps(size_t tokens, size_t m, HyperSaved<T>& saved) {
  const MatView<T> pre = saved.pre.Resize(tokens, m);
  const MatView<T> post = saved.post.Resize(tokens, m);
  const MatView<T> comb = saved.comb.Resize(tokens, m * m);
  for (size_t t = 0; t < tokens; ++t) {
    std::ranges::fill(pre.Row(t), T{1} / static_cast<T>(m));
    std::ranges::fill(post.Row(t), T{1});
    for (size_t i = 0; i < m * m; ++i) comb.Row(t)[i] = i % (m + 1) == 0 ? T{1} : T{0};
  }
}

}  // namespace

template <typename T>
void HyperMapsForward(MatView<const T> streams, const HyperWeights<T>& w, const HyperConfig& config,
                      HyperSaved<T>& saved, const kernels::Context& ctx) {
  const size_t m = config.streams;
  CACHALOT_CHECK(m <= kMaxStreams && w.fn.value.rows == (2 + m) * m);
  if (config.map == ResidualMap::kIdentity) return IdentityMaps(streams.rows, m, saved);
  MixInputs(streams, w, config, saved, ctx);
  saved.pre.Resize(streams.rows, m);
  saved.post.Resize(streams.rows, m);
  saved.comb.Resize(streams.rows, m * m);
  const T* scale = w.scale.value.data;
  const T* base = w.base.value.data;
  ctx.pool->ParallelFor(NumTokenBlocks(streams.rows), [&](size_t block, size_t worker) {
    const size_t begin = block * kTokenBlock;
    const size_t end = std::min(streams.rows, begin + kTokenBlock);
    CombForward(w, config, begin, end, SinkhornScratch<T>(ctx, worker, m, config), saved);
    for (size_t t = begin; t < end; ++t) {
      const T* mix = saved.fn_u.view().Row(t).data();
      const T rs = saved.inverse_rms.data()[t];
      T* pre = saved.pre.view().Row(t).data();
      T* post = saved.post.view().Row(t).data();
      for (size_t i = 0; i < m; ++i) {
        pre[i] = Sigmoid(mix[i] * rs * scale[0] + base[i]) + static_cast<T>(config.hc_eps);
        post[i] = T{2} * Sigmoid(mix[m + i] * rs * scale[1] + base[m + i]);
      }
    }
  });
}

template <typename T>
void HyperPreForward(MatView<const T> streams, const HyperSaved<T>& saved, MatView<T> y,
                     const kernels::Context& ctx) {
  const size_t m = saved.pre.cols();
  CACHALOT_CHECK(streams.cols == m * y.cols);
  ForTokenBlocks(streams.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      MixStreams(streams.Row(t).data(), saved.pre.view().Row(t).data(), m, y.Row(t));
    }
  });
}

template <typename T>
void HyperPostForward(MatView<const T> z, MatView<const T> streams, const HyperSaved<T>& saved,
                      MatView<T> next, const kernels::Context& ctx) {
  const size_t m = saved.post.cols();
  const size_t width = z.cols;
  ForTokenBlocks(z.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const T* post = saved.post.view().Row(t).data();
      const T* comb = saved.comb.view().Row(t).data();
      const T* from = z.Row(t).data();
      for (size_t k = 0; k < m; ++k) {
        T* to = next.Row(t).data() + k * width;
        for (size_t i = 0; i < width; ++i) to[i] = post[k] * from[i];
        for (size_t j = 0; j < m; ++j) {
          const T* x = streams.Row(t).data() + j * width;
          for (size_t i = 0; i < width; ++i) to[i] += comb[j * m + k] * x[i];
        }
      }
    }
  });
}

template <typename T>
void HyperPostBackward(MatView<const T> z, MatView<const T> streams, const HyperSaved<T>& saved,
                       MatView<T> d_streams, MatView<T> d_z, HyperGradients<T>& gradients,
                       const kernels::Context& ctx) {
  const size_t m = saved.post.cols();
  const size_t width = z.cols;
  gradients.d_post.Resize(z.rows, m);
  gradients.d_comb.Resize(z.rows, m * m);
  const auto token = [&](size_t t, T* d_old) {
    const T* post = saved.post.view().Row(t).data();
    const T* comb = saved.comb.view().Row(t).data();
    const T* x = streams.Row(t).data();
    T* d = d_streams.Row(t).data();
    MixStreams(d, post, m, d_z.Row(t));
    for (size_t k = 0; k < m; ++k) {
      gradients.d_post.view().Row(t)[k] = DotRow<T>(d + k * width, z.Row(t).data(), width, ctx);
      for (size_t j = 0; j < m; ++j) {
        gradients.d_comb.view().Row(t)[j * m + k] =
            DotRow<T>(x + j * width, d + k * width, width, ctx);
      }
    }
    for (size_t j = 0; j < m; ++j) {
      MixStreams(d, comb + j * m, m, std::span<T>(d_old + j * width, width));
    }
    std::copy_n(d_old, m * width, d);
  };
  ctx.pool->ParallelFor(NumTokenBlocks(z.rows), [&](size_t b, size_t worker) {
    T* d_old = reinterpret_cast<T*>(ctx.pool->WorkerScratch(worker, m * width * sizeof(T)));
    const size_t end = std::min(z.rows, (b + 1) * kTokenBlock);
    for (size_t t = b * kTokenBlock; t < end; ++t) token(t, d_old);
  });
}

template <typename T>
void HyperPreBackward(MatView<const T> streams, const HyperWeights<T>& w, const HyperConfig& config,
                      const HyperSaved<T>& saved, MatView<const T> d_y,
                      HyperGradients<T>& gradients, MatView<T> d_streams,
                      const kernels::Context& ctx) {
  const size_t m = config.streams;
  if (config.map == ResidualMap::kIdentity) {
    ForTokenBlocks(streams.rows, ctx, [&](size_t begin, size_t end) {
      for (size_t t = begin; t < end; ++t) {
        for (size_t i = 0; i < streams.cols; ++i) {
          d_streams.Row(t)[i] += d_y.Row(t)[i % d_y.cols] / static_cast<T>(m);
        }
      }
    });
    return;
  }
  PreBackward(streams, w, config, saved, d_y, gradients.d_mix, d_streams, ctx,
              [&](size_t begin, size_t end, MatView<T> d_mix, size_t worker) {
                CombBackward(w, config, begin, end, saved, gradients,
                             SinkhornScratch<T>(ctx, worker, m, config), d_mix);
                for (size_t t = begin; t < end; ++t) {
                  for (size_t i = 0; i < m; ++i) {
                    // post = 2 s: d s = s (1 - s), so d post = post (1 - post / 2).
                    const T post = saved.post.view().Row(t)[i];
                    d_mix.Row(t)[m + i] =
                        gradients.d_post.view().Row(t)[i] * post * (T{1} - post / T{2});
                  }
                }
              });
}

template <typename T>
void HyperHeadForward(MatView<const T> streams, const HyperWeights<T>& w, const HyperConfig& config,
                      MatView<T> y, HyperSaved<T>& saved, const kernels::Context& ctx) {
  const size_t m = config.streams;
  CACHALOT_CHECK(m <= kMaxStreams && streams.cols == m * y.cols && w.fn.value.rows == m);
  MixInputs(streams, w, config, saved, ctx);
  saved.pre.Resize(streams.rows, m);
  ForTokenBlocks(streams.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const T* mix = saved.fn_u.view().Row(t).data();
      const T rs = saved.inverse_rms.data()[t];
      T* pre = saved.pre.view().Row(t).data();
      for (size_t i = 0; i < m; ++i) {
        pre[i] = Sigmoid(mix[i] * rs * w.scale.value.data[0] + w.base.value.data[i]) +
                 static_cast<T>(config.hc_eps);
      }
      MixStreams(streams.Row(t).data(), pre, m, y.Row(t));
    }
  });
}

template <typename T>
void HyperHeadBackward(MatView<const T> streams, const HyperWeights<T>& w,
                       const HyperConfig& config, const HyperSaved<T>& saved, MatView<const T> d_y,
                       HyperGradients<T>& gradients, MatView<T> d_streams,
                       const kernels::Context& ctx) {
  PreBackward(streams, w, config, saved, d_y, gradients.d_mix, d_streams, ctx,
              [](size_t, size_t, MatView<T>, size_t) {});
}

#define CACHALOT_INSTANTIATE(T)                                                                 \
  template void HyperMapsForward(MatView<const T>, const HyperWeights<T>&, const HyperConfig&,  \
                                 HyperSaved<T>&, const kernels::Context&);                      \
  template void HyperPreForward(MatView<const T>, const HyperSaved<T>&, MatView<T>,             \
                                const kernels::Context&);                                       \
  template void HyperPostForward(MatView<const T>, MatView<const T>, const HyperSaved<T>&,      \
                                 MatView<T>, const kernels::Context&);                          \
  template void HyperPostBackward(MatView<const T>, MatView<const T>, const HyperSaved<T>&,     \
                                  MatView<T>, MatView<T>, HyperGradients<T>&,                   \
                                  const kernels::Context&);                                     \
  template void HyperPreBackward(MatView<const T>, const HyperWeights<T>&, const HyperConfig&,  \
                                 const HyperSaved<T>&, MatView<const T>, HyperGradients<T>&,    \
                                 MatView<T>, const kernels::Context&);                          \
  template void HyperHeadForward(MatView<const T>, const HyperWeights<T>&, const HyperConfig&,  \
                                 MatView<T>, HyperSaved<T>&, const kernels::Context&);          \
  template void HyperHeadBackward(MatView<const T>, const HyperWeights<T>&, const HyperConfig&, \
                                  const HyperSaved<T>&, MatView<const T>, HyperGradients<T>&,   \
                                  MatView<T>, const kernels::Context&);
CACHALOT_INSTANTIATE(float)
CACHALOT_INSTANTIATE(double)
#undef CACHALOT_INSTANTIATE

}  // namespace cachalot::train
