// SPDX-License-Identifier: Apache-2.0
// Mixture of experts. [V4 2.4; model.md 5]
#include <algorithm>

#include "cachalot/kernels/router.h"
#include "cachalot/kernels/swiglu.h"
#include "cachalot/model/layer.h"

namespace cachalot::model {

MoeHalf::MoeHalf(const Config& c, const ForwardOptions& o)
    : router_logits_(o.max_step_tokens, c.n_routed_experts),
      gate_(size_t{o.max_step_tokens} * c.num_experts_per_tok, c.moe_intermediate_size),
      up_(size_t{o.max_step_tokens} * c.num_experts_per_tok, c.moe_intermediate_size),
      shared_gate_(o.max_step_tokens, c.shared_intermediate_size()),
      shared_up_(o.max_step_tokens, c.shared_intermediate_size()),
      shared_out_(o.max_step_tokens, c.hidden_size),
      slot_out_(
          size_t{o.max_step_tokens} * std::max(c.num_experts_per_tok, o.with_mtp ? c.hc_mult : 0u),
          c.hidden_size) {
  const size_t slots = size_t{o.max_step_tokens} * c.num_experts_per_tok;
  ids_.resize(slots);
  weights_.resize(slots);
  fixed_.resize(slots);
  first_row_.resize(c.n_routed_experts + 1);
  next_row_.resize(c.n_routed_experts);
  row_token_.resize(slots);
  row_weight_.resize(slots);
  slot_row_.resize(slots);
}

size_t MoeHalf::scratch_bytes() const {
  return router_logits_.bytes() + gate_.bytes() + up_.bytes() + shared_gate_.bytes() +
         shared_up_.bytes() + shared_out_.bytes() + slot_out_.bytes();
}

void MoeHalf::Run(const StepEnv& env, const FfnWeights& w, MatView<const float> x, MatView<float> z,
                  MatView<uint32_t> experts) {
  ChooseExperts(env, w, x);
  if (experts.data != nullptr) {
    for (size_t t = 0; t < x.rows; ++t) {
      const uint32_t* ids = ids_.data() + t * env.config.num_experts_per_tok;
      std::copy_n(ids, experts.cols, experts.Row(t).data());
    }
  }
  GroupByExpert(env.config, x.rows);
  env.Mark(StepOp::kRouting);
  RunExperts(env, w, x);
  Combine(env, z);
  env.Mark(StepOp::kCombine);
}

void MoeHalf::ChooseExperts(const StepEnv& env, const FfnWeights& w, MatView<const float> x) {
  const size_t per_tok = env.config.num_experts_per_tok;
  const MatView<float> logits = router_logits_.Rows(x.rows);
  env.linear.Add(env.linear.Prepare(x, InputKind::kFloat), w.gate, logits);
  env.RunProducts(StepOp::kGate);

  kernels::RouterArgs args{.z = logits,
                           .bias = w.gate_bias,
                           .num_experts_per_tok = static_cast<uint32_t>(per_tok),
                           .routed_scaling_factor = env.config.routed_scaling_factor};
  if (!w.tid2eid.empty()) {  // hash layer: the token id alone chooses
    for (size_t t = 0; t < x.rows; ++t) {
      std::copy_n(w.tid2eid.data() + env.plan.tokens[t].id * per_tok, per_tok,
                  fixed_.data() + t * per_tok);
    }
    args.fixed = {fixed_.data(), x.rows * per_tok};
  }
  kernels::Route(args, {ids_.data(), x.rows, per_tok}, {weights_.data(), x.rows, per_tok}, env.ctx);
}

// Counting sort of the (token, slot) pairs by expert, so that an expert's weights are read once for
// all its tokens. Within an expert, tokens ascend.
void MoeHalf::GroupByExpert(const Config& config, size_t num_tokens) {
  const size_t per_tok = config.num_experts_per_tok;
  std::ranges::fill(first_row_, 0u);
  for (size_t s = 0; s < num_tokens * per_tok; ++s) ++first_row_[ids_[s] + 1];
  for (size_t e = 0; e < config.n_routed_experts; ++e) first_row_[e + 1] += first_row_[e];
  std::copy_n(first_row_.begin(), config.n_routed_experts, next_row_.begin());
  for (size_t s = 0; s < num_tokens * per_tok; ++s) {
    const uint32_t row = next_row_[ids_[s]]++;
    row_token_[row] = static_cast<uint32_t>(s / per_tok);
    row_weight_[row] = weights_[s];
    slot_row_[s] = row;
  }
}

void MoeHalf::RunExperts(const StepEnv& env, const FfnWeights& w, MatView<const float> x) {
  const size_t rows = x.rows * env.config.num_experts_per_tok;
  const MatView<float> gate = gate_.Rows(rows);
  const MatView<float> up = up_.Rows(rows);
  const MatView<float> shared_gate = shared_gate_.Rows(x.rows);
  const MatView<float> shared_up = shared_up_.Rows(x.rows);

  const auto input = env.linear.Prepare(x, InputKind::kExperts);
  for (size_t e = 0; e < w.experts.size(); ++e) {
    const size_t count = first_row_[e + 1] - first_row_[e];
    if (count == 0) continue;
    const uint32_t* tokens = row_token_.data() + first_row_[e];
    env.linear.Add(input, w.experts[e].w1, gate.Rows(first_row_[e], count), tokens);
    env.linear.Add(input, w.experts[e].w3, up.Rows(first_row_[e], count), tokens);
  }
  env.linear.Add(input, w.shared.w1, shared_gate);
  env.linear.Add(input, w.shared.w3, shared_up);
  env.RunProducts(StepOp::kExpertsUp);

  // The routing weight is applied before the down projection, as the released code does.
  const float limit = env.config.swiglu_limit;
  kernels::SwiGlu(gate, up, limit, {row_weight_.data(), rows}, gate, env.ctx);
  kernels::SwiGlu(shared_gate, shared_up, limit, {}, shared_gate, env.ctx);
  env.Mark(StepOp::kSwiGlu);

  const auto hidden = env.linear.Prepare(gate, InputKind::kExperts);
  const auto shared_hidden = env.linear.Prepare(shared_gate, InputKind::kQuantized);
  const MatView<float> out = slot_out_.Rows(rows);
  for (size_t e = 0; e < w.experts.size(); ++e) {
    const size_t count = first_row_[e + 1] - first_row_[e];
    if (count == 0) continue;
    // `hidden` rows are grouped already: the expert reads its own stretch.
    env.linear.Add(hidden.Rows(first_row_[e], count), w.experts[e].w2,
                   out.Rows(first_row_[e], count));
  }
  env.linear.Add(shared_hidden, w.shared.w2, shared_out_.Rows(x.rows));
  env.RunProducts(StepOp::kExpertsDown);
}

// z = sum of the slots in ascending expert id, then the shared expert. [design.md 3; model.md 5.5]
void MoeHalf::Combine(const StepEnv& env, MatView<float> z) {
  const size_t per_tok = env.config.num_experts_per_tok;
  const MatView<float> out = slot_out_.Rows(z.rows * per_tok);
  const MatView<float> shared = shared_out_.Rows(z.rows);
  env.ctx.pool->ParallelFor(z.rows, [&](size_t t, size_t) {
    const std::span<float> sum = z.Row(t);
    std::ranges::fill(sum, 0.0f);
    for (size_t a = 0; a < per_tok; ++a) {
      const float* row = out.Row(slot_row_[t * per_tok + a]).data();
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += row[i];
    }
    const float* row = shared.Row(t).data();
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += row[i];
  });
}

}  // namespace cachalot::model
