// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "cachalot/train/activation_format.h"
#include "cachalot/train/layers.h"
#include "cachalot/train/linear.h"
#include "cachalot/train/loss.h"
#include "cachalot/train/pool.h"
#include "cachalot/train/reduce.h"
#include "cachalot/train/row_ops.h"

namespace cachalot::train {

using kernels::Context;

namespace {

// How a tensor is made that is x W^T.
template <typename T>
auto Product(Kept<Matrix<T>>& x, const Weight<T>& w, const Context& ctx) {
  return [&x, &w, &ctx](Matrix<T>& y) {
    const MatView<const T> in = x.view();
    LinearForward<T>(in, w, y.Resize(in.rows, w.value.rows), ctx);
  };
}

}  // namespace

template <typename T>
AttentionLayer<T>::AttentionLayer(const model::Config& config, const AttentionParams<T>& params)
    : p_(params),
      shape_{.heads = config.num_attention_heads,
             .head_dim = config.head_dim,
             .window = config.sliding_window,
             .scale = 1.0 / std::sqrt(static_cast<double>(config.head_dim)),
             .bf16 = params.wkv.bf16},
      groups_(config.o_groups),
      index_heads_(config.index_n_heads),
      index_dim_(config.index_head_dim),
      index_topk_(config.index_topk),
      rope_dim_(config.qk_rope_head_dim),
      eps_(static_cast<T>(config.rms_norm_eps)) {}

template <typename T>
AttentionInputs<T> AttentionLayer<T>::Inputs() {
  return {.q = q_.view(), .kv = kv_.view(), .entries = compressor_.entries.view()};
}

template <typename T>
AttentionLayout AttentionLayer<T>::Layout(const StepEnv<T>& env) const {
  return {.config = shape_,
          .batch = *env.batch,
          .plan = env.plans.at(p_.ratio),
          .selection = selection_};
}

template <typename T>
IndexerInputs<T> AttentionLayer<T>::IndexInputs() {
  return {.heads = index_heads_,
          .topk = index_topk_,
          .q = indexer_.q.view(),
          .weights = indexer_.weights.view(),
          .keys = indexer_.compressor.entries.view()};
}

template <typename T>
bool AttentionLayer<T>::WantsIndexerLoss(const StepEnv<T>& env) const {
  return env.options.indexer_loss && p_.indexer.has_value() && env.most_entries(p_.ratio) > 0;
}

template <typename T>
void AttentionLayer<T>::Share(const RecomputeSet& recompute, SharedPlaces<T>& places) {
  const auto share = [&](Recomputable name, Kept<Matrix<T>>& tensor,
                         SharedPlace<Matrix<T>>& place) {
    if (recompute.contains(name)) tensor.Share(place);
  };
  share(Recomputable::kQueryLatent, qr_raw_, places.qr_raw);
  share(Recomputable::kQueryLatent, qr_, places.qr);
  share(Recomputable::kQueryProjection, q_raw_, places.q_raw);
  share(Recomputable::kQueries, q_, places.q);
  share(Recomputable::kWindowEntries, kv_raw_, places.kv_raw);
  share(Recomputable::kWindowEntries, kv_, places.kv);
  share(Recomputable::kOutputLatent, mid_, places.mid);
  for (CompressorSaved<T>* compressor : {&compressor_, &indexer_.compressor}) {
    share(Recomputable::kCompressor, compressor->k, places.k);
    share(Recomputable::kCompressor, compressor->gate, places.gate);
  }
  share(Recomputable::kIndexQueries, indexer_.q, places.index_q);
  share(Recomputable::kIndexScores, indexer_.scores, places.index_scores);
}

template <typename T>
double AttentionLayer<T>::Forward(const StepEnv<T>& env, Kept<Matrix<T>>& x,
                                  const EntrySelection* replay, MatView<T> z) {
  const Context& ctx = env.ctx;
  const size_t tokens = z.rows;
  const size_t heads = shape_.heads;
  const size_t d = shape_.head_dim;
  ForwardQueries(env, x);
  ForwardKv(env, x);
  if (p_.compressor) {
    ForwardCompressor(env, *p_.compressor, x, d, compressor_);
    if (env.options.quantized_activations) {
      RoundTripKvEntries<T>(compressor_.entries.view(), rope_dim_, ctx);
    }
  }
  selection_ = EntrySelection();
  if (p_.indexer) ForwardIndexer(env, x, replay);

  const bool indexer_loss = WantsIndexerLoss(env);
  MatView<T> mass;
  if (indexer_loss) mass = indexer_.mass.Resize(tokens, env.most_entries(p_.ratio));
  const MatView<T> out = out_.Resize(tokens, heads * d);
  AttentionForward<T>(Inputs(), p_.attn_sink, Layout(env), out, saved_, mass, ctx);
  Rotate(Reshape(out, tokens * heads, d), heads, env.positions, env.rope(p_.ratio), true, ctx);
  ForwardOutput(env, z);
  if (!indexer_loss) return 0;
  // The loss alone; its gradient is made in the backward pass.
  const MatView<const T> scores = indexer_.scores.view();
  Matrix<T> d_scores(tokens, scores.cols);
  return IndexerLoss<T>(scores, indexer_.mass.view(), Layout(env), 0, d_scores.view(), ctx);
}

// Queries, latent and by heads [model.md 4.1].
template <typename T>
void AttentionLayer<T>::ForwardQueries(const StepEnv<T>& env, Kept<Matrix<T>>& x) {
  qr_raw_.Make(Product(x, p_.wq_a, env.ctx));
  qr_.Make([this, &env](Matrix<T>& qr) {
    const MatView<const T> raw = qr_raw_.view();
    RmsNormForward<T>(raw, p_.q_norm, eps_, qr.Resize(raw.rows, raw.cols), qr_norm_, env.ctx);
  });
  q_raw_.Make(Product(qr_, p_.wq_b, env.ctx));
  q_.Make([this, &env](Matrix<T>& queries) {
    const MatView<const T> raw = q_raw_.view();
    const size_t rows = raw.rows * shape_.heads;
    const size_t d = shape_.head_dim;
    const MatView<T> q = Reshape(queries.Resize(raw.rows, raw.cols), rows, d);
    RmsNormForward<T>(Reshape(raw, rows, d), {}, eps_, q, q_norm_, env.ctx);
    Rotate(q, shape_.heads, env.positions, env.rope(p_.ratio), false, env.ctx);
  });
}

// Keys that are values too [model.md 4.2].
template <typename T>
void AttentionLayer<T>::ForwardKv(const StepEnv<T>& env, Kept<Matrix<T>>& x) {
  kv_raw_.Make(Product(x, p_.wkv, env.ctx));
  kv_.Make([this, &env](Matrix<T>& entries) {
    const MatView<const T> raw = kv_raw_.view();
    const MatView<T> kv = entries.Resize(raw.rows, raw.cols);
    RmsNormForward<T>(raw, p_.kv_norm, eps_, kv, kv_norm_, env.ctx);
    Rotate(kv, 1, env.positions, env.rope(p_.ratio), false, env.ctx);
    if (env.options.quantized_activations) RoundTripKvEntries<T>(kv, rope_dim_, env.ctx);
  });
}

// Grouped output projection [model.md 4.6].
template <typename T>
void AttentionLayer<T>::ForwardOutput(const StepEnv<T>& env, MatView<T> z) {
  mid_.Make([this, &env](Matrix<T>& latent) {
    const size_t rank = p_.wo_a.value.rows / groups_;
    const size_t width = p_.wo_a.value.cols;
    const MatView<T> mid = latent.Resize(out_.rows(), p_.wo_a.value.rows);
    for (size_t g = 0; g < groups_; ++g) {
      LinearForward<T>(out_.view().Cols(g * width, width), p_.wo_a.Rows(g * rank, rank),
                       mid.Cols(g * rank, rank), env.ctx);
    }
  });
  LinearForward<T>(mid_.view(), p_.wo_b, z, env.ctx);
}

template <typename T>
void AttentionLayer<T>::ForwardCompressor(const StepEnv<T>& env, const CompressorParams<T>& p,
                                          Kept<Matrix<T>>& x, size_t head_size,
                                          CompressorSaved<T>& saved) {
  const EntryPlan& plan = env.plans.at(p_.ratio);
  const bool overlap = p.wkv.value.rows == 2 * head_size;
  saved.k.Make(Product(x, p.wkv, env.ctx));
  saved.gate.Make([&env, &p, project = Product(x, p.wgate, env.ctx)](Matrix<T>& gate) {
    project(gate);
    AddPositionBias(p.ape, *env.batch, gate.view(), env.ctx);
  });
  const size_t entries = plan.num_entries();
  const MatView<T> pooled = saved.pooled.Resize(entries, head_size);
  PoolForward<T>(saved.k.view(), saved.gate.view(), plan, overlap, pooled, env.ctx);
  RmsNormForward<T>(pooled, p.norm, eps_, saved.entries.Resize(entries, head_size), saved.norm,
                    env.ctx);
  Rotate(saved.entries.view(), 1, plan.positions, env.rope(p_.ratio), false, env.ctx);
}

template <typename T>
void AttentionLayer<T>::ForwardIndexer(const StepEnv<T>& env, Kept<Matrix<T>>& x,
                                       const EntrySelection* replay) {
  const bool sparse =
      env.options.csa == CsaMode::kSparse && env.most_entries(p_.ratio) > index_topk_;
  const bool loss = WantsIndexerLoss(env);
  if (replay != nullptr) selection_ = *replay;
  // With no more entries than it may choose, every choice is all of them [model.md 4.8].
  if (!loss && (!sparse || replay != nullptr)) return;
  ForwardIndexQueries(env, x.view());
  ForwardCompressor(env, p_.indexer->compressor, x, index_dim_, indexer_.compressor);
  if (env.options.quantized_activations) {
    RoundTripIndexRows<T>(indexer_.compressor.entries.view(), env.ctx);
  }
  const bool choose = sparse && replay == nullptr;
  const auto score = [this, &env, choose](MatView<T> scores) {
    EntrySelection chosen =
        SelectEntries<T>(IndexInputs(), *env.batch, env.plans.at(p_.ratio), scores, env.ctx);
    if (choose) selection_ = std::move(chosen);  // when made again: the same
  };
  if (!loss) return score({});
  indexer_.scores.Make([this, &env, score](Matrix<T>& scores) {
    score(scores.Resize(env.batch->num_tokens(), env.most_entries(p_.ratio)));
  });
}

// Queries of the indexer and the weights of its heads.
template <typename T>
void AttentionLayer<T>::ForwardIndexQueries(const StepEnv<T>& env, MatView<const T> x) {
  indexer_.q.Make([this, &env, project = Product(qr_, p_.indexer->wq_b, env.ctx)](Matrix<T>& to) {
    project(to);
    const MatView<T> q = Reshape(to.view(), to.rows() * index_heads_, index_dim_);
    Rotate(q, index_heads_, env.positions, env.rope(p_.ratio), false, env.ctx);
    if (env.options.quantized_activations) RoundTripIndexRows<T>(q, env.ctx);
  });
  const MatView<T> weights = indexer_.weights.Resize(x.rows, index_heads_);
  LinearForward(x, p_.indexer->weights_proj, weights, env.ctx);
  const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(index_dim_ * index_heads_)));
  ForTokenBlocks(x.rows, env.ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      for (T& w : weights.Row(t)) w *= scale;
    }
  });
}

template <typename T>
MatView<T> AttentionLayer<T>::BackwardOutput(StepEnv<T>& env, MatView<const T> d_z) {
  const size_t rank = p_.wo_a.value.rows / groups_;
  const size_t width = p_.wo_a.value.cols;
  const MatView<T> d_mid = env.scratch.d_mid.Resize(d_z.rows, p_.wo_a.value.rows);
  LinearBackward<T>(mid_.view(), p_.wo_b, d_z, d_mid, env.ctx, Write::kOverwrite);
  const MatView<T> d_out = env.scratch.d_out.Resize(d_z.rows, out_.cols());
  for (size_t g = 0; g < groups_; ++g) {
    LinearBackward<T>(out_.view().Cols(g * width, width), p_.wo_a.Rows(g * rank, rank),
                      d_mid.Cols(g * rank, rank), d_out.Cols(g * width, width), env.ctx,
                      Write::kOverwrite);
  }
  return d_out;
}

template <typename T>
void AttentionLayer<T>::Backward(StepEnv<T>& env, MatView<const T> x, MatView<const T> d_z,
                                 MatView<T> d_x) {
  const size_t tokens = x.rows;
  const size_t heads = shape_.heads;
  const size_t d = shape_.head_dim;
  const MatView<T> d_out = BackwardOutput(env, d_z);
  // Both sides before the rotation back: it is orthogonal, so the products are those of the
  // rotated vectors.
  const MatView<T> delta = env.scratch.delta.Resize(tokens, heads);
  ForTokenBlocks(tokens, env.ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      for (size_t h = 0; h < heads; ++h) {
        delta.Row(t)[h] =
            DotRow<T>(d_out.Row(t).data() + h * d, out_.view().Row(t).data() + h * d, d, env.ctx);
      }
    }
  });
  Rotate(Reshape(d_out, tokens * heads, d), heads, env.positions, env.rope(p_.ratio), false,
         env.ctx);
  const MatView<T> d_q = env.scratch.d_q.Resize(tokens, heads * d);
  const MatView<T> d_kv = env.scratch.d_kv.Resize(tokens, d);
  const MatView<T> d_entries =
      env.scratch.d_entries.Resize(env.plans.at(p_.ratio).num_entries(), d);
  AttentionBackward<T>(Inputs(), p_.attn_sink, Layout(env), saved_, delta,
                       {.d_out = d_out, .d_q = d_q, .d_kv = d_kv, .d_entries = d_entries}, env.ctx);
  BackwardQuery(env, x, d_q, d_x);
  BackwardKv(env, x, d_kv, d_x);
  if (p_.compressor) BackwardCompressor(env, *p_.compressor, compressor_, x, d_entries, d_x);
  if (WantsIndexerLoss(env) && env.options.scales.indexer != 0) BackwardIndexer(env, x);
}

template <typename T>
void AttentionLayer<T>::BackwardQuery(StepEnv<T>& env, MatView<const T> x, MatView<T> d_q,
                                      MatView<T> d_x) {
  const size_t rows = x.rows * shape_.heads;
  const size_t d = shape_.head_dim;
  Rotate(Reshape(d_q, rows, d), shape_.heads, env.positions, env.rope(p_.ratio), true, env.ctx);
  const MatView<T> d_q_raw = env.scratch.d_q_raw.Resize(x.rows, d_q.cols);
  RmsNormBackward<T>(Reshape(q_raw_.view(), rows, d), {}, q_norm_, Reshape<const T>(d_q, rows, d),
                     Reshape(d_q_raw, rows, d), env.ctx, Write::kOverwrite);
  const MatView<T> d_qr = env.scratch.d_qr.Resize(x.rows, p_.wq_a.value.rows);
  LinearBackward<T>(qr_.view(), p_.wq_b, d_q_raw, d_qr, env.ctx, Write::kOverwrite);
  const MatView<T> d_qr_raw = env.scratch.d_qr_raw.Resize(x.rows, d_qr.cols);
  RmsNormBackward<T>(qr_raw_.view(), p_.q_norm, qr_norm_, d_qr, d_qr_raw, env.ctx,
                     Write::kOverwrite);
  LinearBackward<T>(x, p_.wq_a, d_qr_raw, d_x, env.ctx, Write::kOverwrite);
}

template <typename T>
void AttentionLayer<T>::BackwardKv(StepEnv<T>& env, MatView<const T> x, MatView<T> d_kv,
                                   MatView<T> d_x) {
  Rotate(d_kv, 1, env.positions, env.rope(p_.ratio), true, env.ctx);
  const MatView<T> d_kv_raw = env.scratch.d_kv_raw.Resize(x.rows, d_kv.cols);
  RmsNormBackward<T>(kv_raw_.view(), p_.kv_norm, kv_norm_, d_kv, d_kv_raw, env.ctx,
                     Write::kOverwrite);
  LinearBackward<T>(x, p_.wkv, d_kv_raw, d_x, env.ctx);
}

template <typename T>
void AttentionLayer<T>::BackwardCompressor(StepEnv<T>& env, const CompressorParams<T>& p,
                                           CompressorSaved<T>& saved, MatView<const T> x,
                                           MatView<T> d_entries, MatView<T> d_x) {
  const EntryPlan& plan = env.plans.at(p_.ratio);
  if (plan.num_entries() == 0) return;
  Rotate(d_entries, 1, plan.positions, env.rope(p_.ratio), true, env.ctx);
  const MatView<T> d_pooled = env.scratch.d_pooled.Resize(d_entries.rows, d_entries.cols);
  RmsNormBackward<T>(saved.pooled.view(), p.norm, saved.norm, d_entries, d_pooled, env.ctx,
                     Write::kOverwrite);
  const size_t width = p.wkv.value.rows;
  const MatView<T> d_k = env.scratch.d_k.Resize(x.rows, width);
  const MatView<T> d_gate = env.scratch.d_gate.Resize(x.rows, width);
  PoolBackward<T>(saved.k.view(), saved.gate.view(), plan, width == 2 * d_entries.cols, d_pooled,
                  d_k, d_gate, env.ctx);
  PositionBiasBackward<T>(p.ape, *env.batch, d_gate, env.ctx);
  LinearBackward<T>(x, p.wkv, d_k, d_x, env.ctx);
  LinearBackward<T>(x, p.wgate, d_gate, d_x, env.ctx);
}

// The indexer learns from its own loss only: nothing goes on to x or to the queries' latent.
template <typename T>
void AttentionLayer<T>::BackwardIndexer(StepEnv<T>& env, MatView<const T> x) {
  const size_t tokens = x.rows;
  const EntryPlan& plan = env.plans.at(p_.ratio);
  const MatView<const T> scores = indexer_.scores.view();
  const MatView<T> d_scores = env.scratch.d_scores.Resize(tokens, scores.cols);
  IndexerLoss<T>(scores, indexer_.mass.view(), Layout(env), env.options.scales.indexer, d_scores,
                 env.ctx);
  const MatView<T> d_q = env.scratch.d_index_q.Resize(tokens, index_heads_ * index_dim_);
  const MatView<T> d_weights = env.scratch.d_index_weights.Resize(tokens, index_heads_);
  const MatView<T> d_keys = env.scratch.d_entries.ResizeZero(plan.num_entries(), index_dim_);
  IndexerBackward<T>(IndexInputs(), *env.batch, plan, d_scores,
                     {.d_q = d_q, .d_weights = d_weights, .d_keys = d_keys}, env.ctx);
  Rotate(Reshape(d_q, tokens * index_heads_, index_dim_), index_heads_, env.positions,
         env.rope(p_.ratio), true, env.ctx);
  LinearBackward<T>(qr_.view(), p_.indexer->wq_b, d_q, {}, env.ctx);
  const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(index_dim_ * index_heads_)));
  for (size_t i = 0; i < tokens * index_heads_; ++i) d_weights.data[i] *= scale;
  LinearBackward<T>(x, p_.indexer->weights_proj, d_weights, {}, env.ctx);
  BackwardCompressor(env, p_.indexer->compressor, indexer_.compressor, x, d_keys, {});
}

template <typename T>
size_t AttentionLayer<T>::bytes() const {
  const auto compressor = [](const CompressorSaved<T>& c) {
    return c.k.bytes() + c.gate.bytes() + c.pooled.bytes() + c.norm.inverse_rms.bytes() +
           c.entries.bytes();
  };
  return qr_norm_.inverse_rms.bytes() + q_norm_.inverse_rms.bytes() + kv_norm_.inverse_rms.bytes() +
         qr_raw_.bytes() + qr_.bytes() + q_raw_.bytes() + q_.bytes() + kv_raw_.bytes() +
         kv_.bytes() + out_.bytes() + mid_.bytes() + saved_.lse.bytes() + compressor(compressor_) +
         compressor(indexer_.compressor) + indexer_.q.bytes() + indexer_.weights.bytes() +
         indexer_.scores.bytes() + indexer_.mass.bytes();
}

template class AttentionLayer<float>;
template class AttentionLayer<double>;

}  // namespace cachalot::train
