// SPDX-License-Identifier: Apache-2.0
// Mixture of experts. [V4 2.4; model.md 5]
#include <algorithm>
#include <limits>

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
  group_.reserve(c.n_routed_experts);
  wanted_.reserve(c.n_routed_experts);
  likelihood_.resize(c.n_routed_experts);
  failed_.resize(o.max_step_tokens);
}

size_t MoeHalf::scratch_bytes() const {
  return router_logits_.bytes() + gate_.bytes() + up_.bytes() + shared_gate_.bytes() +
         shared_up_.bytes() + shared_out_.bytes() + slot_out_.bytes();
}

void MoeHalf::Run(const StepEnv& env, const FfnWeights& w, uint32_t layer, MatView<const float> x,
                  MatView<float> z, MatView<uint32_t> experts) {
  ChooseExperts(env, w, x);
  if (experts.data != nullptr) {
    for (size_t t = 0; t < x.rows; ++t) {
      const uint32_t* ids = ids_.data() + t * env.config.num_experts_per_tok;
      std::copy_n(ids, experts.cols, experts.Row(t).data());
    }
  }
  GroupByExpert(env.config, x.rows);
  env.Mark(StepOp::kRouting);
  if (env.expert_source == nullptr) {
    RunResident(env, w, x);
  } else {
    RunStreamed(env, w, layer, x);
  }
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
    FixedExperts(env, w);
    args.fixed = {fixed_.data(), x.rows * per_tok};
  }
  kernels::Route(args, {ids_.data(), x.rows, per_tok}, {weights_.data(), x.rows, per_tok}, env.ctx);
}

void MoeHalf::FixedExperts(const StepEnv& env, const FfnWeights& w) {
  const size_t per_tok = env.config.num_experts_per_tok;
  for (size_t t = 0; t < env.plan.tokens.size(); ++t) {
    std::copy_n(w.tid2eid.data() + env.plan.tokens[t].id * per_tok, per_tok,
                fixed_.data() + t * per_tok);
  }
}

void MoeHalf::PrefetchHashed(const StepEnv& env, const FfnWeights& w, uint32_t layer) {
  FixedExperts(env, w);
  const size_t slots = env.plan.tokens.size() * env.config.num_experts_per_tok;
  std::copy_n(fixed_.begin(), slots, ids_.begin());
  std::fill_n(weights_.begin(), slots, 1.0f);
  RankWanted(slots);
  env.expert_source->Prefetch(layer, wanted_, std::numeric_limits<double>::infinity());
}

void MoeHalf::PrefetchLikely(const StepEnv& env, const FfnWeights& w, uint32_t layer,
                             MatView<const float> x, double seconds) {
  ChooseExperts(env, w, x);
  RankWanted(x.rows * env.config.num_experts_per_tok);
  env.expert_source->Prefetch(layer, wanted_, seconds);
  env.Mark(StepOp::kRouting);
}

// The distinct experts of ids_ to wanted_, those of most routing weight first.
void MoeHalf::RankWanted(size_t num_slots) {
  std::ranges::fill(likelihood_, 0.0f);
  std::ranges::fill(next_row_, 0u);
  for (size_t s = 0; s < num_slots; ++s) {
    likelihood_[ids_[s]] += weights_[s];
    ++next_row_[ids_[s]];
  }
  wanted_.clear();
  for (uint32_t e = 0; e < next_row_.size(); ++e) {
    if (next_row_[e] > 0) wanted_.push_back({e, next_row_[e]});
  }
  std::ranges::sort(wanted_, [this](const WantedExpert& a, const WantedExpert& b) {
    const float la = likelihood_[a.expert];
    const float lb = likelihood_[b.expert];
    return la != lb ? la > lb : a.expert < b.expert;
  });
}

void MoeHalf::ClearFailed(size_t num_tokens) {
  std::fill_n(failed_.begin(), num_tokens, uint8_t{0});
  any_failed_ = false;
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

void MoeHalf::RunResident(const StepEnv& env, const FfnWeights& w, MatView<const float> x) {
  group_.clear();
  for (uint32_t e = 0; e < w.experts.size(); ++e) {
    if (NumRows(e) > 0) group_.push_back({e, &w.experts[e]});
  }
  RunGroup(env, w, x, env.linear.Prepare(x, InputKind::kExperts), /*with_shared=*/true);
}

// The experts in the order in which they come into memory: their rows have fixed places, so the
// order shows in no bit. The first group is what is there, with the shared expert; the disk reads
// the others meanwhile.
void MoeHalf::RunStreamed(const StepEnv& env, const FfnWeights& w, uint32_t layer,
                          MatView<const float> x) {
  CollectWanted(w.experts.size());
  env.expert_source->Begin(layer, x.rows, wanted_);
  const auto input = env.linear.Prepare(x, InputKind::kExperts);
  env.linear.Hold();
  for (bool first = true;; first = false) {
    const std::span<const ReadyExpert> ready = env.expert_source->Next(/*wait=*/!first);
    env.Mark(StepOp::kExpertWait);
    if (ready.empty() && !first) break;
    group_.assign(ready.begin(), ready.end());
    std::ranges::sort(group_, {}, &ReadyExpert::expert);
    FailGroup();
    RunGroup(env, w, x, input, /*with_shared=*/first);
  }
  env.linear.Release();
}

void MoeHalf::CollectWanted(size_t num_experts) {
  wanted_.clear();
  for (uint32_t e = 0; e < num_experts; ++e) {
    if (NumRows(e) > 0) wanted_.push_back({e, static_cast<uint32_t>(NumRows(e))});
  }
}

// Takes what could not be read out of the group: rows of zeros, and tokens that are marked.
void MoeHalf::FailGroup() {
  for (const ReadyExpert& ready : group_) {
    if (ready.weights != nullptr) continue;
    const MatView<float> rows = ExpertRows(slot_out_, ready.expert);
    std::fill_n(rows.data, rows.rows * rows.cols, 0.0f);
    for (size_t i = 0; i < rows.rows; ++i) {
      failed_[row_token_[first_row_[ready.expert] + i]] = 1;
    }
    any_failed_ = true;
  }
  std::erase_if(group_, [](const ReadyExpert& ready) { return ready.weights == nullptr; });
}

// group_ (ascending) from the step's rows to their places in slot_out_; the shared expert too if
// asked.
void MoeHalf::RunGroup(const StepEnv& env, const FfnWeights& w, MatView<const float> x,
                       const Linear::Input& input, bool with_shared) {
  for (const ReadyExpert& ready : group_) {
    const uint32_t* tokens = row_token_.data() + first_row_[ready.expert];
    env.linear.Add(input, ready.weights->w1, ExpertRows(gate_, ready.expert), tokens);
    env.linear.Add(input, ready.weights->w3, ExpertRows(up_, ready.expert), tokens);
  }
  const MatView<float> shared_gate = shared_gate_.Rows(x.rows);
  const MatView<float> shared_up = shared_up_.Rows(x.rows);
  if (with_shared) {
    env.linear.Add(input, w.shared.w1, shared_gate);
    env.linear.Add(input, w.shared.w3, shared_up);
  }
  env.RunProducts(StepOp::kExpertsUp);

  SwiGluGroup(env);
  const float limit = env.config.swiglu_limit;
  if (with_shared) kernels::SwiGlu(shared_gate, shared_up, limit, {}, shared_gate, env.ctx);
  env.Mark(StepOp::kSwiGlu);

  AddDown(env);
  if (with_shared) {
    const auto shared_hidden = env.linear.Prepare(shared_gate, InputKind::kQuantized);
    env.linear.Add(shared_hidden, w.shared.w2, shared_out_.Rows(x.rows));
  }
  env.RunProducts(StepOp::kExpertsDown);
}

// Calls fn(first of group_, past its last, first row, rows) for each stretch of grouped rows
// without a gap: one if the group is all experts of the step.
template <typename Fn>
void MoeHalf::ForEachStretch(const Fn& fn) const {
  for (size_t i = 0; i < group_.size();) {
    const uint32_t begin = first_row_[group_[i].expert];
    size_t j = i + 1;
    while (j < group_.size() &&
           first_row_[group_[j].expert] == first_row_[group_[j - 1].expert + 1]) {
      ++j;
    }
    fn(i, j, begin, first_row_[group_[j - 1].expert + 1] - begin);
    i = j;
  }
}

// The routing weight is applied before the down projection, as the released code does.
void MoeHalf::SwiGluGroup(const StepEnv& env) {
  ForEachStretch([&](size_t, size_t, uint32_t row, uint32_t rows) {
    const MatView<float> gate(gate_.buffer.data() + row * gate_.num_cols, rows, gate_.num_cols);
    const MatView<float> up(up_.buffer.data() + row * up_.num_cols, rows, up_.num_cols);
    kernels::SwiGlu(gate, up, env.config.swiglu_limit, {row_weight_.data() + row, rows}, gate,
                    env.ctx);
  });
}

void MoeHalf::AddDown(const StepEnv& env) {
  ForEachStretch([&](size_t first, size_t end, uint32_t row, uint32_t rows) {
    const MatView<float> gate(gate_.buffer.data() + row * gate_.num_cols, rows, gate_.num_cols);
    const Linear::Input hidden = env.linear.Prepare(gate, InputKind::kExperts);
    for (size_t i = first; i < end; ++i) {
      // `hidden` rows are grouped already: the expert reads its own stretch.
      const uint32_t expert = group_[i].expert;
      const size_t at = first_row_[expert] - row;
      env.linear.Add(hidden.Rows(at, NumRows(expert)), group_[i].weights->w2,
                     ExpertRows(slot_out_, expert));
    }
  });
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
