// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cachalot/train/layers.h"
#include "cachalot/train/linear.h"
#include "cachalot/train/router.h"

namespace cachalot::train {

template <typename T>
FfnLayer<T>::FfnLayer(const model::Config& config, const FfnParams<T>& params)
    : p_(params),
      per_token_(config.num_experts_per_tok),
      scaling_(double{config.routed_scaling_factor}) {}

template <typename T>
double FfnLayer<T>::Forward(StepEnv<T>& env, MatView<const T> x, std::span<const uint32_t> ids,
                            const Selections* replay, size_t layer, bool balance, MatView<T> z) {
  ids_.resize(x.rows * per_token_);
  LinearForward(x, p_.gate, logits_.Resize(x.rows, p_.gate.value.rows), env.ctx);
  if (p_.table != nullptr) {
    for (size_t t = 0; t < x.rows; ++t) {
      const auto chosen = Ids(x.rows).Row(t);
      std::copy_n(p_.table->ids.data() + ids[t] * per_token_, per_token_, chosen.begin());
      std::ranges::sort(chosen);
    }
  } else if (replay != nullptr) {
    CACHALOT_CHECK(replay->experts[layer].size() == ids_.size());
    ids_ = replay->experts[layer];
  } else {
    ChooseExperts<T>(logits_.view(), p_.gate_bias, Ids(x.rows), env.ctx);
  }
  const MatView<T> weights = weights_.Resize(x.rows, per_token_);
  RoutingWeightsForward<T>(logits_.view(), Ids(x.rows), scaling_, weights, env.ctx);
  MoeForward<T>(x, Ids(x.rows), weights, p_.moe, z, saved_, env.scratch.moe, env.ctx);
  unbiased_.clear();
  if (!balance || p_.table != nullptr) return 0;
  unbiased_.resize(ids_.size());
  if (replay != nullptr && !replay->unbiased.empty()) {
    unbiased_ = replay->unbiased[layer];
  } else {
    ChooseExperts<T>(logits_.view(), nullptr, Unbiased(x.rows), env.ctx);
  }
  return BalanceLoss<T>(logits_.view(), Unbiased(x.rows), *env.batch, 0, {}, env.ctx);
}

template <typename T>
void FfnLayer<T>::Backward(StepEnv<T>& env, MatView<const T> x, MatView<const T> d_z, bool balance,
                           MatView<T> d_x) {
  const MatView<T> d_weights = env.scratch.d_weights.Resize(x.rows, per_token_);
  const MatView<T> d_logits = env.scratch.d_logits.Resize(x.rows, logits_.cols());
  MoeBackward<T>(x, weights_.view(), p_.moe, saved_, d_z, d_x, d_weights, env.scratch.moe, env.ctx);
  RoutingWeightsBackward<T>(logits_.view(), Ids(x.rows), scaling_, d_weights, d_logits, env.ctx);
  if (balance && p_.table == nullptr && env.options.scales.balance != 0) {
    BalanceLoss<T>(logits_.view(), Unbiased(x.rows), *env.batch, env.options.scales.balance,
                   d_logits, env.ctx);
  }
  LinearBackward<T>(x, p_.gate, d_logits, d_x, env.ctx);
}

template <typename T>
void FfnLayer<T>::ServeForward(StepEnv<T>& env) {
  const MatView<T> nothing(nullptr, 0, p_.gate.value.cols);
  MoeForward<T>(nothing, Ids(0), MatView<const T>(nullptr, 0, per_token_), p_.moe, nothing, saved_,
                env.scratch.moe, env.ctx);
}

template <typename T>
void FfnLayer<T>::ServeBackward(StepEnv<T>& env) {
  const MatView<T> nothing(nullptr, 0, p_.gate.value.cols);
  const MatView<T> no_weights(nullptr, 0, per_token_);
  MoeBackward<T>(nothing, no_weights, p_.moe, saved_, nothing, nothing, no_weights, env.scratch.moe,
                 env.ctx);
}

template <typename T>
size_t FfnLayer<T>::bytes() const {
  const ExpertGroups& groups = saved_.groups;
  return logits_.bytes() + weights_.bytes() +
         (ids_.size() + groups.row_token.size() + groups.slot_row.size()) * sizeof(uint32_t) +
         saved_.gate.bytes() + saved_.up.bytes() + saved_.shared_gate.bytes() +
         saved_.shared_up.bytes();
}

template class FfnLayer<float>;
template class FfnLayer<double>;

}  // namespace cachalot::train
