// SPDX-License-Identifier: Apache-2.0
// One step through all layers. [model.md 3.1, 6.1]
#include "cachalot/model/forward.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"
#include "cachalot/kernels/hyper_connection.h"
#include "cachalot/kernels/rms_norm.h"
#include "cachalot/model/layer.h"

namespace cachalot::model {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The largest group of inputs prepared together: the attention output of a tile, or in the FFN half
// the routed hidden rows beside the shared ones, or the MTP streams beside the token embedding.
size_t MaxInputElements(const Config& c, const ForwardOptions& o, bool streamed) {
  const size_t tokens = o.max_step_tokens;
  const size_t tile = std::min<size_t>(tokens, kAttentionTile);
  const size_t attention = tile * c.num_attention_heads * c.head_dim;
  const size_t hidden = tokens * (size_t{c.num_experts_per_tok} * c.moe_intermediate_size +
                                  c.shared_intermediate_size());
  const size_t projections = tokens * c.hidden_size * (o.with_mtp ? c.hc_mult + 1 : 1);
  const size_t wo_b = tile * c.o_groups * c.o_lora_rank;
  // Streamed experts hold the tokens beside the hidden rows, and each group of rows may waste a
  // line.
  const size_t held = streamed ? tokens * c.hidden_size + c.n_routed_experts * kCacheLineBytes : 0;
  return std::max({attention, hidden + held, projections, wo_b, tile * size_t{c.q_lora_rank}});
}

// Rows of that group: slots, the shared expert's and held tokens, or MTP streams and the embedding.
size_t MaxInputRows(const Config& c, const ForwardOptions& o) {
  return o.max_step_tokens *
         (std::max<size_t>(c.num_experts_per_tok, o.with_mtp ? c.hc_mult : 0) + 2);
}

// Experts (w1 and w3 each) and the shared expert, or the projections of an attention half.
size_t MaxJobs(const Config& c) { return 2 * size_t{c.n_routed_experts} + 2 + c.o_groups + 8; }

RopeTable MakeRopeTable(const Config& c, size_t max_tokens, bool compressed) {
  const kernels::YarnParams yarn{
      .factor = c.yarn_factor,
      .beta_fast = c.yarn_beta_fast,
      .beta_slow = c.yarn_beta_slow,
      .original_max_position_embeddings = c.yarn_original_max_position_embeddings};
  RopeTable table;
  table.frequencies = compressed
                          ? kernels::RopeFrequencies(c.compress_rope_theta, c.qk_rope_head_dim,
                                                     c.has_yarn ? &yarn : nullptr)
                          : kernels::RopeFrequencies(c.rope_theta, c.qk_rope_head_dim, nullptr);
  table.cos = Activation(max_tokens, c.qk_rope_head_dim / 2);
  table.sin = Activation(max_tokens, c.qk_rope_head_dim / 2);
  return table;
}

Status CheckOptions(const ForwardOptions& options, const Weights& weights) {
  if (options.max_step_tokens == 0 || options.max_step_sequences == 0) {
    return Error{ErrorCode::kInvalidArgument, "a step needs room for at least one token"};
  }
  if (options.with_mtp && !weights.mtp) {
    return Error{ErrorCode::kInvalidArgument, "MTP was asked for, but the checkpoint has no mtp.0"};
  }
  return {};
}

}  // namespace

struct Forward::Impl {
  Impl(std::shared_ptr<const Weights> w, const ForwardOptions& o, const kernels::Context& c);

  void Embed();
  void RunLayer(const StepEnv& env, const LayerWeights& w, size_t kv_layer,
                MatView<uint32_t> experts);
  // Reads ahead: what is known of all layers when a step begins, what is likely of layer l.
  void PrefetchHashLayers(const StepEnv& env);
  void PrefetchLayer(const StepEnv& env, size_t l);
  Status TakeFailures(std::span<const SequenceInput> inputs, std::span<uint8_t> failed) const;
  void HcPre(const StepEnv& env, const HcWeights& hc, std::span<const float> norm);
  void HeadInput(const StepEnv& env, const HcWeights& hc, std::span<const float> norm);
  void WriteLogits(const StepEnv& env, const ForwardOutputs& outputs);
  // The environment of the planned tokens; computes their rotation angles.
  StepEnv PrepareEnv();
  // Logits of all planned rows, or of logit_rows if not null.
  void RunMtp(const StepEnv& env, const uint32_t* logit_rows, MatView<float> logits);
  kernels::HcParams Params(const HcWeights& hc) const;

  size_t num_tokens() const { return plan.tokens.size(); }
  const Config& config() const { return weights->config; }

  std::shared_ptr<const Weights> weights;
  ForwardOptions options;
  kernels::Context ctx;
  StepPlan plan;
  Linear linear;
  RopeTable window_rope, compressed_rope;
  AttentionHalf attention;
  MoeHalf moe;
  Activation streams;              // X [T, M D]
  bool streams_hold_step = false;  // after all layers of the last step, for Draft
  Activation hc_mix;               // fn u [T, (2+M) M]
  Activation hc_post, hc_comb;     // [T, M], [T, M M]
  Activation x, z;                 // [T, D] sublayer input and output
  double attention_seconds = 0;    // of the last layer, up to its experts
};

Forward::Impl::Impl(std::shared_ptr<const Weights> w, const ForwardOptions& o,
                    const kernels::Context& c)
    : weights(std::move(w)),
      options(o),
      ctx(c),
      linear(o.numerics, c, MaxInputRows(weights->config, o),
             MaxInputElements(weights->config, o, weights->expert_source != nullptr),
             MaxJobs(weights->config)),
      window_rope(MakeRopeTable(weights->config, o.max_step_tokens, false)),
      compressed_rope(MakeRopeTable(weights->config, o.max_step_tokens, true)),
      attention(weights->config, o, c.pool->num_threads()),
      moe(weights->config, o),
      streams(o.max_step_tokens, size_t{config().hc_mult} * config().hidden_size),
      hc_mix(o.max_step_tokens, config().mix_rows()),
      hc_post(o.max_step_tokens, config().hc_mult),
      hc_comb(o.max_step_tokens, size_t{config().hc_mult} * config().hc_mult),
      x(o.max_step_tokens, config().hidden_size),
      z(o.max_step_tokens, config().hidden_size) {
  plan.Reserve(o.max_step_tokens, o.max_step_sequences);
}

kernels::HcParams Forward::Impl::Params(const HcWeights& hc) const {
  return {.base = hc.base,
          .scale = hc.scale,
          .sinkhorn_iters = config().hc_sinkhorn_iters,
          .hc_eps = config().hc_eps,
          .norm_eps = config().rms_norm_eps};
}

StepEnv Forward::Impl::PrepareEnv() {
  for (RopeTable* rope : {&window_rope, &compressed_rope}) {
    kernels::RopeAngles(rope->frequencies, plan.positions, rope->cos.Rows(num_tokens()),
                        rope->sin.Rows(num_tokens()));
  }
  return {.config = config(),
          .options = options,
          .ctx = ctx,
          .plan = plan,
          .linear = linear,
          .window_rope = window_rope,
          .compressed_rope = compressed_rope,
          .expert_source = weights->expert_source.get()};
}

// X[m] = embed[token] for every stream m.
void Forward::Impl::Embed() {
  const size_t width = config().hidden_size;
  const MatView<float> rows = streams.Rows(num_tokens());
  ctx.pool->ParallelFor(num_tokens(), [&](size_t t, size_t) {
    const std::span<float> row = rows.Row(t);
    WidenRow(weights->embed, plan.tokens[t].id, row.first(width));
    for (size_t m = 1; m < config().hc_mult; ++m) {
      std::ranges::copy(row.first(width), row.subspan(m * width).begin());
    }
  });
}

// x = norm(sum_m pre[m] X[m]), keeping post and comb for HcPost.
void Forward::Impl::HcPre(const StepEnv& env, const HcWeights& hc, std::span<const float> norm) {
  const size_t n = num_tokens();
  linear.Add(linear.Prepare(streams.Rows(n), InputKind::kFloat), hc.fn, hc_mix.Rows(n));
  linear.Run();
  kernels::HcPre(streams.Rows(n), hc_mix.Rows(n), Params(hc), x.Rows(n), hc_post.Rows(n),
                 hc_comb.Rows(n), ctx);
  env.Mark(StepOp::kHyperConnection);
  kernels::RmsNorm(x.Rows(n), norm, config().rms_norm_eps, x.Rows(n), env.ctx);
  env.Mark(StepOp::kNorm);
}

void Forward::Impl::RunLayer(const StepEnv& env, const LayerWeights& w, size_t kv_layer,
                             MatView<uint32_t> experts) {
  const size_t n = num_tokens();
  const auto layer_begin = Clock::now();
  HcPre(env, w.hc_attn, w.attn_norm);
  attention.Run(env, w, kv_layer, x.Rows(n), z.Rows(n));
  kernels::HcPost(z.Rows(n), hc_post.Rows(n), hc_comb.Rows(n), streams.Rows(n), ctx);
  env.Mark(StepOp::kHyperConnection);

  HcPre(env, w.hc_ffn, w.ffn_norm);
  if (env.expert_source != nullptr) attention_seconds = SecondsSince(layer_begin);
  moe.Run(env, w.ffn, static_cast<uint32_t>(kv_layer), x.Rows(n), z.Rows(n), experts);
  kernels::HcPost(z.Rows(n), hc_post.Rows(n), hc_comb.Rows(n), streams.Rows(n), ctx);
  env.Mark(StepOp::kHyperConnection);
}

void Forward::Impl::PrefetchHashLayers(const StepEnv& env) {
  if (env.expert_source == nullptr || !env.expert_source->wants_guesses()) return;
  for (uint32_t l = 0; l < weights->layers.size(); ++l) {
    const FfnWeights& ffn = weights->layers[l].ffn;
    if (!ffn.tid2eid.empty()) moe.PrefetchHashed(env, ffn, l);
  }
}

// The router of layer l on the residual as it is before its attention half: a guess, which that
// half then hides the reads of.
void Forward::Impl::PrefetchLayer(const StepEnv& env, size_t l) {
  if (env.expert_source == nullptr || !env.expert_source->wants_guesses()) return;
  if (l >= weights->layers.size() || !weights->layers[l].ffn.tid2eid.empty()) return;
  const LayerWeights& w = weights->layers[l];
  HcPre(env, w.hc_ffn, w.ffn_norm);
  moe.PrefetchLikely(env, w.ffn, static_cast<uint32_t>(l), x.Rows(num_tokens()), attention_seconds);
}

// Tells inputs apart by whether an expert of theirs was missing.
Status Forward::Impl::TakeFailures(std::span<const SequenceInput> inputs,
                                   std::span<uint8_t> failed) const {
  std::ranges::fill(failed, uint8_t{0});
  if (!moe.any_failed()) return {};
  if (failed.empty()) return weights->expert_source->failure();
  CACHALOT_CHECK(failed.size() == inputs.size());
  size_t t = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    for (size_t end = t + inputs[i].tokens.size(); t < end; ++t) {
      if (moe.failed(t)) failed[i] = 1;
    }
  }
  return {};
}

// x = norm(hc_head(X)): what the head matrix multiplies. [model.md 3.4]
void Forward::Impl::HeadInput(const StepEnv& env, const HcWeights& hc,
                              std::span<const float> norm) {
  const size_t n = num_tokens();
  const MatView<float> mix(hc_mix.buffer.data(), n, hc.fn.rows);
  linear.Add(linear.Prepare(streams.Rows(n), InputKind::kFloat), hc.fn, mix);
  linear.Run();
  kernels::HcHead(streams.Rows(n), mix, Params(hc), x.Rows(n), env.ctx);
  env.Mark(StepOp::kHyperConnection);
  kernels::RmsNorm(x.Rows(n), norm, config().rms_norm_eps, x.Rows(n), env.ctx);
  env.Mark(StepOp::kNorm);
}

void Forward::Impl::WriteLogits(const StepEnv& env, const ForwardOutputs& outputs) {
  if (outputs.logit_rows.empty() && outputs.hidden.data == nullptr) return;
  HeadInput(env, weights->hc_head, weights->norm);
  if (outputs.hidden.data != nullptr) {
    for (size_t t = 0; t < num_tokens(); ++t) {
      std::ranges::copy(x.Rows(num_tokens()).Row(t), outputs.hidden.Row(t).begin());
    }
  }
  if (outputs.logit_rows.empty()) return;
  linear.Add(linear.Prepare(x.Rows(num_tokens()), InputKind::kFloat), weights->head, outputs.logits,
             outputs.logit_rows.data());
  env.RunProducts(StepOp::kHead);
}

// X'[m] = e_proj norm(embed[next]) + h_proj norm(X[m]); then the block and its own head. The MTP
// window is KV layer L. [model.md 6.1]
void Forward::Impl::RunMtp(const StepEnv& env, const uint32_t* logit_rows, MatView<float> logits) {
  const MtpWeights& mtp = *weights->mtp;
  const size_t n = num_tokens();
  const size_t width = config().hidden_size;
  const float eps = config().rms_norm_eps;
  const MatView<float> next = x.Rows(n);
  for (size_t t = 0; t < n; ++t) WidenRow(weights->embed, plan.mtp_next[t], next.Row(t));
  kernels::RmsNorm(next, mtp.enorm, eps, next, ctx);
  const MatView<float> stream_rows(streams.buffer.data(), n * config().hc_mult, width);
  kernels::RmsNorm(stream_rows, mtp.hnorm, eps, stream_rows, ctx);

  const MatView<float> projected = moe.Spare(n * config().hc_mult);
  linear.Add(linear.Prepare(next, InputKind::kQuantized), mtp.e_proj, z.Rows(n));
  linear.Add(linear.Prepare(stream_rows, InputKind::kQuantized), mtp.h_proj, projected);
  linear.Run();
  ctx.pool->ParallelFor(stream_rows.rows, [&](size_t row, size_t) {
    const std::span<float> out = stream_rows.Row(row);
    const std::span<const float> e = z.Rows(n).Row(row / config().hc_mult);
    const std::span<const float> h = projected.Row(row);
    for (size_t i = 0; i < width; ++i) out[i] = e[i] + h[i];
  });
  env.Mark(StepOp::kOther);

  RunLayer(env, mtp.layer, config().num_hidden_layers, {});
  HeadInput(env, mtp.hc_head, mtp.norm);
  if (logits.rows == 0) return;
  linear.Add(linear.Prepare(x.Rows(n), InputKind::kFloat), weights->head, logits, logit_rows);
  env.RunProducts(StepOp::kHead);
}

Result<std::unique_ptr<Forward>> Forward::Create(std::shared_ptr<const Weights> weights,
                                                 const ForwardOptions& options,
                                                 const kernels::Context& ctx) {
  CACHALOT_CHECK(weights != nullptr && ctx.pool != nullptr);
  CACHALOT_RETURN_IF_ERROR(CheckOptions(options, *weights));
  kernels::Context own = ctx;
  own.path = options.numerics == Numerics::kFast ? kernels::Path::kSimd : kernels::Path::kReference;
  try {
    return std::unique_ptr<Forward>(
        new Forward(std::make_unique<Impl>(std::move(weights), options, own)));
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kResourceExhausted,
                 StrCat("no memory for the scratch of a step of ", options.max_step_tokens,
                        " tokens; lower the prefill chunk")};
  }
}

Forward::Forward(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Forward::~Forward() = default;

const Weights& Forward::weights() const { return *impl_->weights; }
const ForwardOptions& Forward::options() const { return impl_->options; }

size_t Forward::scratch_bytes() const {
  size_t bytes =
      impl_->linear.scratch_bytes() + impl_->attention.scratch_bytes() + impl_->moe.scratch_bytes();
  for (const Activation* a :
       {&impl_->streams, &impl_->hc_mix, &impl_->hc_post, &impl_->hc_comb, &impl_->x, &impl_->z}) {
    bytes += a->bytes();
  }
  return bytes;
}

Status Forward::Step(std::span<const SequenceInput> inputs, const ForwardOutputs& outputs) {
  Impl& m = *impl_;
  if (m.options.profile != nullptr) m.options.profile->Start();
  m.streams_hold_step = false;
  CACHALOT_RETURN_IF_ERROR(m.plan.Build(inputs, m.config(), m.options));
  const size_t n = m.num_tokens();
  if (n == 0) return {};
  const bool run_mtp = outputs.mtp_logits.data != nullptr;
  if (run_mtp && (!m.options.with_mtp || m.plan.mtp_next.size() != n)) {
    return Error{ErrorCode::kInvalidArgument,
                 "MTP logits need with_mtp and the next token of every position"};
  }
  CACHALOT_CHECK(outputs.logit_rows.size() == outputs.logits.rows);

  const StepEnv env = m.PrepareEnv();
  env.Mark(StepOp::kOther);
  m.Embed();
  env.Mark(StepOp::kEmbed);
  m.moe.ClearFailed(n);
  m.PrefetchHashLayers(env);
  for (size_t l = 0; l < m.weights->layers.size(); ++l) {
    if (l > 0) m.PrefetchLayer(env, l);
    m.RunLayer(env, m.weights->layers[l], l,
               outputs.experts.empty() ? MatView<uint32_t>{} : outputs.experts[l]);
    if (!outputs.layer_streams.empty()) {
      for (size_t t = 0; t < n; ++t) {
        std::ranges::copy(m.streams.Rows(n).Row(t), outputs.layer_streams[l].Row(t).begin());
      }
      env.Mark(StepOp::kOther);
    }
  }
  m.WriteLogits(env, outputs);
  m.streams_hold_step = !run_mtp;
  if (run_mtp) m.RunMtp(env, nullptr, outputs.mtp_logits);
  return m.TakeFailures(inputs, outputs.failed);
}

Status Forward::Draft(std::span<const uint32_t> rows, std::span<const uint32_t> next,
                      std::span<const uint32_t> logit_rows, MatView<float> logits) {
  Impl& m = *impl_;
  CACHALOT_CHECK(m.options.with_mtp && m.streams_hold_step);
  CACHALOT_CHECK(logit_rows.size() == logits.rows);
  for (const uint32_t row : logit_rows) CACHALOT_CHECK(row < rows.size());
  if (rows.empty()) return {};
  CACHALOT_RETURN_IF_ERROR(m.plan.Keep(rows, next, m.config()));
  m.streams_hold_step = false;
  const MatView<float> streams(m.streams.buffer.data(), rows.back() + 1, m.streams.num_cols);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] != i) std::ranges::copy(streams.Row(rows[i]), streams.Row(i).begin());
  }
  m.RunMtp(m.PrepareEnv(), logit_rows.data(), logits);
  return {};
}

}  // namespace cachalot::model
