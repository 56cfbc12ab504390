// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/network.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <optional>

#include "cachalot/kernels/rope.h"
#include "cachalot/train/layers.h"
#include "cachalot/train/linear.h"
#include "cachalot/train/loss.h"
#include "cachalot/train/reduce.h"
#include "cachalot/train/residual_gain.h"

namespace cachalot::train {
namespace {

// What mHC and the norm around a sublayer keep.
template <typename T>
struct HalfSaved {
  Kept<Matrix<T>> streams;  // [T, M D] input
  HyperSaved<T> hyper;
  Kept<Matrix<T>> y;  // [T, D] streams mixed
  NormSaved<T> norm;
  Kept<Matrix<T>> x;  // [T, D] normed: the sublayer's input
  Matrix<T> z;        // [T, D] its output

  size_t bytes() const {
    return streams.bytes() + hyper.bytes() + norm.inverse_rms.bytes() + y.bytes() + x.bytes() +
           z.bytes();
  }
};

template <typename T>
struct Layer {
  Layer(const model::Config& config, const LayerParams<T>& p)
      : params(p), attention(config, p.attn), ffn(config, p.ffn) {}
  LayerParams<T> params;
  AttentionLayer<T> attention;
  FfnLayer<T> ffn;
  HalfSaved<T> attn_half, ffn_half;

  // All but the streams.
  void Share(const RecomputeSet& recompute, SharedPlaces<T>& places) {
    for (HalfSaved<T>* half : {&attn_half, &ffn_half}) {
      if (recompute.contains(Recomputable::kMixed)) half->y.Share(places.mixed);
      if (recompute.contains(Recomputable::kNormed)) half->x.Share(places.normed);
    }
    attention.Share(recompute, places);
    ffn.Share(recompute, places);
  }
};

// hc_head, final norm and the loss behind them.
template <typename T>
struct HeadHalf {
  HyperSaved<T> hyper;
  Matrix<T> y, normed, d_normed, d_y;  // [T, D]
  NormSaved<T> norm;
};

template <typename T>
struct MtpState {
  MtpState(const model::Config& config, const MtpParams<T>& p)
      : params(p), layer(config, p.layer) {}
  MtpParams<T> params;
  Layer<T> layer;
  Matrix<T> streams;              // after the block
  Matrix<T> embedded, e, e_proj;  // [T, D]
  Matrix<T> h;                    // [T M, D]
  NormSaved<T> enorm, hnorm;
  HeadHalf<T> head;
};

size_t CountTargets(const std::vector<uint32_t>& targets) {
  return targets.size() - static_cast<size_t>(std::ranges::count(targets, kNoTarget));
}

// out[t] = sum over streams of d [T, M D].
template <typename T>
void SumStreams(MatView<const T> d, MatView<T> out, const kernels::Context& ctx) {
  ForTokenBlocks(d.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      T* to = out.Row(t).data();
      std::copy_n(d.Row(t).data(), out.cols, to);
      for (size_t from = out.cols; from < d.cols; from += out.cols) {
        for (size_t i = 0; i < out.cols; ++i) to[i] += d.Row(t)[from + i];
      }
    }
  });
}

// streams[t][m] (+)= x[t] for every stream m.
template <typename T>
void Broadcast(MatView<const T> x, bool accumulate, MatView<T> streams,
               const kernels::Context& ctx) {
  ForTokenBlocks(x.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const T* from = x.Row(t).data();
      for (size_t at = 0; at < streams.cols; at += x.cols) {
        T* to = streams.Row(t).data() + at;
        for (size_t i = 0; i < x.cols; ++i) to[i] = accumulate ? to[i] + from[i] : from[i];
      }
    }
  });
}

}  // namespace

template <typename T>
class Network<T>::Impl {
 public:
  Impl(const model::Config& config, ParameterSetT<T>& set, const kernels::Context& ctx,
       const NetworkOptions& options)
      : config_(config),
        ctx_(ctx),
        params_(BindParameters(config_, set, options.precision == Precision::kBf16)),
        hyper_{.map = options.residual,
               .streams = config.hc_mult,
               .sinkhorn_iters = config.hc_sinkhorn_iters,
               .hc_eps = double{config.hc_eps},
               .norm_eps = double{config.rms_norm_eps}},
        eps_(static_cast<T>(config.rms_norm_eps)),
        env_{.config = config_,
             .options = {},
             .ctx = ctx_,
             .batch = nullptr,
             .positions = {},
             .plans = {},
             .window_rope = {},
             .compressed_rope = {},
             .scratch = {}} {
    for (LayerParams<T>& p : params_.layers) p.ffn.moe.exchange = options.experts;
    if (params_.mtp) params_.mtp->layer.ffn.moe.exchange = options.experts;
    for (const LayerParams<T>& p : params_.layers) layers_.emplace_back(config_, p);
    if (params_.mtp) mtp_.emplace(config_, *params_.mtp);
    SharePlaces(options.recompute);
  }

  LossSums Run(const TrainBatch& batch, const RunOptions& options) {
    Prepare(batch, options);
    LossSums sums{.samples = batch.num_samples(), .tokens = batch.num_tokens()};
    ForwardMain(sums);
    sums.ce_tokens = CountTargets(batch.targets);
    sums.ce = ForwardHead(final_.view(), params_.hc_head, params_.norm, batch.targets,
                          options.scales.ce, head_);
    const bool with_mtp = mtp_.has_value() && !batch.mtp_ids.empty();
    if (with_mtp) ForwardMtp(sums);
    Record(with_mtp);
    if (options.backward) Backward(with_mtp);
    return sums;
  }

  // The experts' part of Run, layer by layer in its order.
  void Serve(const RunOptions& options) {
    for (Layer<T>& layer : layers_) layer.ffn.ServeForward(env_);
    if (mtp_) mtp_->layer.ffn.ServeForward(env_);
    if (!options.backward) return;
    if (mtp_ && options.scales.mtp != 0) mtp_->layer.ffn.ServeBackward(env_);
    for (size_t l = layers_.size(); l-- > 0;) layers_[l].ffn.ServeBackward(env_);
  }

  std::vector<double> ResidualGains() const {
    std::vector<MatView<const T>> maps;
    for (const Layer<T>& layer : layers_) {
      maps.push_back(layer.attn_half.hyper.comb.view());
      maps.push_back(layer.ffn_half.hyper.comb.view());
    }
    return CompositeGains<T>(maps, hyper_.streams);
  }

  size_t kept_bytes() const {
    size_t total = 0;
    for (const Layer<T>& layer : layers_) {
      total += layer.attn_half.bytes() + layer.ffn_half.bytes() + layer.attention.bytes() +
               layer.ffn.bytes();
    }
    return total;
  }
  size_t recomputed_bytes() const { return places_.bytes(); }

 private:
  void SharePlaces(const RecomputeSet& recompute) {
    const size_t group = StreamGroupSize(2 * layers_.size(), recompute);
    places_.streams.resize(group - 1);
    size_t i = 0;
    for (Layer<T>& layer : layers_) {
      layer.Share(recompute, places_);
      for (HalfSaved<T>* half : {&layer.attn_half, &layer.ffn_half}) {
        if (!KeepsStreams(i, group)) half->streams.Share(places_.streams[i % group]);
        ++i;
      }
    }
    if (!mtp_) return;
    mtp_->layer.Share(recompute, places_);
    // Its first streams come from products.
    if (group > 1) mtp_->layer.ffn_half.streams.Share(places_.streams[0]);
  }

  MatView<T> Streams(Matrix<T>& m) {
    return m.Resize(env_.batch->num_tokens(), hyper_.streams * config_.hidden_size);
  }
  MatView<T> Hidden(Matrix<T>& m) {
    return m.Resize(env_.batch->num_tokens(), config_.hidden_size);
  }

  void Prepare(const TrainBatch& batch, const RunOptions& options) {
    CACHALOT_CHECK(batch.num_samples() > 0 && batch.sample_begin.back() == batch.num_tokens());
    CACHALOT_CHECK(batch.targets.size() == batch.num_tokens());
    for (const uint32_t id : batch.ids) CACHALOT_CHECK(id < config_.vocab_size);
    env_.batch = &batch;
    env_.options = options;
    env_.positions.clear();
    for (size_t s = 0; s < batch.num_samples(); ++s) {
      for (size_t p = 0; p < batch.sample_length(s); ++p) {
        env_.positions.push_back(static_cast<uint32_t>(p));
      }
    }
    env_.plans.clear();
    env_.plans.emplace(0, MakeEntryPlan(batch, 0));
    for (const LayerParams<T>& layer : params_.layers) {
      const size_t ratio = layer.attn.ratio;
      if (!env_.plans.contains(ratio)) env_.plans.emplace(ratio, MakeEntryPlan(batch, ratio));
    }
    if (env_.window_rope.cos.rows() < batch.max_length()) MakeRopes(batch.max_length());
  }

  void MakeRopes(size_t positions) {
    const kernels::YarnParams yarn{
        .factor = config_.yarn_factor,
        .beta_fast = config_.yarn_beta_fast,
        .beta_slow = config_.yarn_beta_slow,
        .original_max_position_embeddings = config_.yarn_original_max_position_embeddings};
    const uint32_t dims = config_.qk_rope_head_dim;
    env_.window_rope =
        MakeRotaryTable<T>(kernels::RopeFrequencies(config_.rope_theta, dims, nullptr), positions);
    env_.compressed_rope =
        MakeRotaryTable<T>(kernels::RopeFrequencies(config_.compress_rope_theta, dims,
                                                    config_.has_yarn ? &yarn : nullptr),
                           positions);
  }

  const EntrySelection* ReplayEntries(size_t layer) const {
    const Selections* replay = env_.options.replay;
    return replay == nullptr || replay->entries.empty() ? nullptr : &replay->entries[layer];
  }

  void ForwardMain(LossSums& sums) {
    EmbedForward<T>(params_.embed, env_.batch->ids, Hidden(embedded_), ctx_);
    std::function<void(Matrix<T>&)> enter = [this](Matrix<T>& streams) {
      Broadcast<T>(embedded_.view(), false, Streams(streams), ctx_);
    };
    for (size_t l = 0; l < layers_.size(); ++l) {
      layers_[l].attn_half.streams.Make(std::move(enter));
      ForwardLayer(layers_[l], l, env_.batch->ids, /*balance=*/true, sums);
      enter = StreamsAfter(layers_[l].ffn_half);
    }
    enter(final_);
  }

  // x of a half from its streams.
  void EnterHalf(HalfSaved<T>& half, const HyperWeights<T>& hyper, const Weight<T>& norm) {
    HyperMapsForward<T>(half.streams.view(), hyper, hyper_, half.hyper, ctx_);
    half.y.Make([this, &half](Matrix<T>& y) {
      HyperPreForward<T>(half.streams.view(), half.hyper, Hidden(y), ctx_);
    });
    half.x.Make([this, &half, &norm](Matrix<T>& x) {
      RmsNormForward<T>(half.y.view(), norm, eps_, Hidden(x), half.norm, ctx_);
    });
  }

  // How the streams are made that leave a half.
  auto StreamsAfter(HalfSaved<T>& half) {
    return [this, &half](Matrix<T>& next) {
      HyperPostForward<T>(half.z.view(), half.streams.view(), half.hyper, Streams(next), ctx_);
    };
  }

  // From the streams of its attention half to z of its other half.
  void ForwardLayer(Layer<T>& layer, size_t index, std::span<const uint32_t> ids, bool balance,
                    LossSums& sums) {
    HalfSaved<T>& attn = layer.attn_half;
    EnterHalf(attn, layer.params.hc_attn, layer.params.attn_norm);
    sums.indexer += layer.attention.Forward(env_, attn.x, ReplayEntries(index), Hidden(attn.z));
    HalfSaved<T>& ffn = layer.ffn_half;
    ffn.streams.Make(StreamsAfter(attn));
    EnterHalf(ffn, layer.params.hc_ffn, layer.params.ffn_norm);
    sums.balance +=
        layer.ffn.Forward(env_, ffn.x, ids, env_.options.replay, index, balance, Hidden(ffn.z));
  }

  double ForwardHead(MatView<const T> streams, const HyperWeights<T>& hyper, const Weight<T>& norm,
                     std::span<const uint32_t> targets, double scale, HeadHalf<T>& half) {
    HyperHeadForward<T>(streams, hyper, hyper_, Hidden(half.y), half.hyper, ctx_);
    RmsNormForward<T>(half.y.view(), norm, eps_, Hidden(half.normed), half.norm, ctx_);
    half.d_normed.Resize(streams.rows, config_.hidden_size);
    const double factor = env_.options.backward ? scale : 0;
    return HeadLoss<T>(half.normed.view(), params_.head, targets, factor, half.d_normed.view(),
                       head_scratch_, ctx_);
  }

  // X'[m] = e_proj norm(embed[u]) + h_proj norm(X[m]) [model.md 6.1].
  void ForwardMtp(LossSums& sums) {
    MtpState<T>& m = *mtp_;
    const TrainBatch& batch = *env_.batch;
    CACHALOT_CHECK(batch.mtp_ids.size() == batch.num_tokens());
    CACHALOT_CHECK(batch.mtp_targets.size() == batch.num_tokens());
    const size_t rows = batch.num_tokens() * hyper_.streams;
    const size_t width = config_.hidden_size;
    EmbedForward<T>(params_.embed, batch.mtp_ids, Hidden(m.embedded), ctx_);
    RmsNormForward<T>(m.embedded.view(), m.params.enorm, eps_, Hidden(m.e), m.enorm, ctx_);
    LinearForward<T>(m.e.view(), m.params.e_proj, Hidden(m.e_proj), ctx_);
    RmsNormForward<T>(Reshape<const T>(final_.view(), rows, width), m.params.hnorm, eps_,
                      m.h.Resize(rows, width), m.hnorm, ctx_);
    m.layer.attn_half.streams.Make([this, &m, rows, width](Matrix<T>& to) {
      const MatView<T> streams = Streams(to);
      LinearForward<T>(m.h.view(), m.params.h_proj, Reshape(streams, rows, width), ctx_);
      Broadcast<T>(m.e_proj.view(), true, streams, ctx_);
    });
    ForwardLayer(m.layer, layers_.size(), batch.mtp_ids, /*balance=*/false, sums);
    StreamsAfter(m.layer.ffn_half)(m.streams);
    sums.mtp_tokens = CountTargets(batch.mtp_targets);
    sums.mtp = ForwardHead(m.streams.view(), m.params.hc_head, m.params.norm, batch.mtp_targets,
                           env_.options.scales.mtp, m.head);
  }

  void Record(bool with_mtp) {
    const RunOptions& options = env_.options;
    if (options.record != nullptr) *options.record = Selections();
    const size_t count = layers_.size() + (with_mtp ? 1 : 0);
    if (options.expert_load != nullptr) options.expert_load->resize(count);
    for (size_t l = 0; l < count; ++l) {
      const Layer<T>& layer = l < layers_.size() ? layers_[l] : mtp_->layer;
      if (options.record != nullptr) {
        options.record->experts.push_back(layer.ffn.experts());
        options.record->unbiased.push_back(layer.ffn.unbiased());
        options.record->entries.push_back(layer.attention.selection());
      }
      if (options.expert_load == nullptr) continue;
      std::vector<uint64_t>& load = (*options.expert_load)[l];
      load.resize(config_.n_routed_experts);
      for (const uint32_t e : layer.ffn.experts()) ++load[e];
    }
  }

  void Backward(bool with_mtp) {
    ZeroRows(Streams(d_streams_), ctx_);
    const LossScales& scales = env_.options.scales;
    if (scales.ce != 0) {
      BackwardHead(final_.view(), params_.hc_head, params_.norm, head_, d_streams_.view());
    }
    if (with_mtp && scales.mtp != 0) BackwardMtp();
    for (size_t l = layers_.size(); l-- > 0;) {
      BackwardLayer(layers_[l], /*balance=*/true, d_streams_.view());
    }
    SumStreams<T>(d_streams_.view(), Hidden(d_hidden_), ctx_);
    EmbedBackward<T>(params_.embed, env_.batch->ids, d_hidden_.view(), ctx_);
  }

  void BackwardHead(MatView<const T> streams, const HyperWeights<T>& hyper, const Weight<T>& norm,
                    HeadHalf<T>& half, MatView<T> d_streams) {
    half.d_y.Resize(streams.rows, config_.hidden_size);
    RmsNormBackward<T>(half.y.view(), norm, half.norm, half.d_normed.view(), half.d_y.view(), ctx_,
                       Write::kOverwrite);
    HyperHeadBackward<T>(streams, hyper, hyper_, half.hyper, half.d_y.view(), hyper_gradients_,
                         d_streams, ctx_);
  }

  void BackwardMtp() {
    MtpState<T>& m = *mtp_;
    const size_t tokens = env_.batch->num_tokens();
    const size_t width = config_.hidden_size;
    const size_t rows = tokens * hyper_.streams;
    const MatView<T> d = Streams(d_mtp_);
    ZeroRows(d, ctx_);
    BackwardHead(m.streams.view(), m.params.hc_head, m.params.norm, m.head, d);
    BackwardLayer(m.layer, /*balance=*/false, d);
    const MatView<T> d_rows = Reshape(d, rows, width);
    const MatView<T> d_h = d_h_.Resize(rows, width);
    LinearBackward<T>(m.h.view(), m.params.h_proj, d_rows, d_h, ctx_, Write::kOverwrite);
    RmsNormBackward<T>(Reshape<const T>(final_.view(), rows, width), m.params.hnorm, m.hnorm, d_h,
                       Reshape(d_streams_.view(), rows, width), ctx_);
    SumStreams<T>(d, Hidden(d_hidden_), ctx_);
    const MatView<T> d_e = d_x_.Resize(tokens, width);
    LinearBackward<T>(m.e.view(), m.params.e_proj, d_hidden_.view(), d_e, ctx_, Write::kOverwrite);
    const MatView<T> d_embedded = d_y_.Resize(tokens, width);
    RmsNormBackward<T>(m.embedded.view(), m.params.enorm, m.enorm, d_e, d_embedded, ctx_,
                       Write::kOverwrite);
    EmbedBackward<T>(params_.embed, env_.batch->mtp_ids, d_embedded, ctx_);
  }

  // From d_x of a half's sublayer to its streams.
  void LeaveHalf(HalfSaved<T>& half, const HyperWeights<T>& hyper, const Weight<T>& norm,
                 MatView<T> d_streams) {
    const MatView<T> d_y = Hidden(d_y_);
    RmsNormBackward<T>(half.y.view(), norm, half.norm, d_x_.view(), d_y, ctx_, Write::kOverwrite);
    HyperPreBackward<T>(half.streams.view(), hyper, hyper_, half.hyper, d_y, hyper_gradients_,
                        d_streams, ctx_);
  }

  void BackwardLayer(Layer<T>& layer, bool balance, MatView<T> d_streams) {
    HalfSaved<T>& ffn = layer.ffn_half;
    HyperPostBackward<T>(ffn.z.view(), ffn.streams.view(), ffn.hyper, d_streams, Hidden(d_z_),
                         hyper_gradients_, ctx_);
    Hidden(d_x_);
    layer.ffn.Backward(env_, ffn.x.view(), d_z_.view(), balance, d_x_.view());
    LeaveHalf(ffn, layer.params.hc_ffn, layer.params.ffn_norm, d_streams);
    HalfSaved<T>& attn = layer.attn_half;
    HyperPostBackward<T>(attn.z.view(), attn.streams.view(), attn.hyper, d_streams, Hidden(d_z_),
                         hyper_gradients_, ctx_);
    Hidden(d_x_);
    layer.attention.Backward(env_, attn.x.view(), d_z_.view(), d_x_.view());
    LeaveHalf(attn, layer.params.hc_attn, layer.params.attn_norm, d_streams);
  }

  const model::Config config_;
  const kernels::Context ctx_;
  NetworkParams<T> params_;
  HyperConfig hyper_;
  T eps_;
  StepEnv<T> env_;
  SharedPlaces<T> places_;
  std::deque<Layer<T>> layers_;
  std::optional<MtpState<T>> mtp_;
  Matrix<T> embedded_, final_;
  HeadHalf<T> head_;
  HeadScratch<T> head_scratch_;
  HyperGradients<T> hyper_gradients_;
  Matrix<T> d_streams_, d_mtp_;           // [T, M D]
  Matrix<T> d_hidden_, d_z_, d_x_, d_y_;  // [T, D]
  Matrix<T> d_h_;                         // [T M, D]
};

template <typename T>
Network<T>::Network(const model::Config& config, ParameterSetT<T>& set, const kernels::Context& ctx,
                    const NetworkOptions& options)
    : impl_(std::make_unique<Impl>(config, set, ctx, options)) {}

template <typename T>
Network<T>::~Network() = default;

template <typename T>
LossSums Network<T>::Run(const TrainBatch& batch, const RunOptions& options) {
  return impl_->Run(batch, options);
}

template <typename T>
void Network<T>::Serve(const RunOptions& options) {
  impl_->Serve(options);
}

template <typename T>
std::vector<double> Network<T>::ResidualGains() const {
  return impl_->ResidualGains();
}

template <typename T>
size_t Network<T>::kept_bytes() const {
  return impl_->kept_bytes();
}

template <typename T>
size_t Network<T>::recomputed_bytes() const {
  return impl_->recomputed_bytes();
}

template class Network<float>;
template class Network<double>;

}  // namespace cachalot::train
