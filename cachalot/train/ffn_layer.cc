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
void FfnLayer<T>::Share(const RecomputeSet& recompute, SharedPlaces<T>& places) {
  if (recompute.contains(Recomputable::kExpertGateUp)) saved_.Share(places.gate_up);
}

template <typename T>
double FfnLayer<T>::Forward(StepEnv<T>& env, Kept<Matrix<T>>& input, std::span<const uint32_t> ids,
                            const Selections* replay, size_t layer, bool balance, MatView<T> z) {
  const MatView<const T> x = input.view();
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
  saved_.Make([this, &env, &input](MoeSaved<T>& saved) {
    const MatView<const T> in = input.view();
    MoeGateUpForward<T>(in, Ids(in.rows), p_.moe, saved, env.scratch.moe, env.ctx);
  });
  MoeForward<T>(weights, p_.moe, saved_.Get(), z, env.scratch.moe, env.ctx);
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
  MoeBackward<T>(x, weights_.view(), p_.moe, saved_.Get(), d_z, d_x, d_weights, env.scratch.moe,
                 env.ctx);
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
  saved_.Make([this, &env, nothing](MoeSaved<T>& saved) {
    MoeGateUpForward<T>(nothing, Ids(0), p_.moe, saved, env.scratch.moe, env.ctx);
  });
  MoeForward<T>(MatView<const T>(nullptr, 0, per_token_), p_.moe, saved_.Get(), nothing,
                env.scratch.moe, env.ctx);
}

template <typename T>
void FfnLayer<T>::ServeBackward(StepEnv<T>& env) {
  const MatView<T> nothing(nullptr, 0, p_.gate.value.cols);
  const MatView<T> no_weights(nullptr, 0, per_token_);
  MoeBackward<T>(nothing, no_weights, p_.moe, saved_.Get(), nothing, nothing, no_weights,
                 env.scratch.moe, env.ctx);
}

template <typename T>
size_t FfnLayer<T>::bytes() const {
  return logits_.bytes() + weights_.bytes() + ids_.size() * sizeof(uint32_t) + saved_.bytes();
}

template class FfnLayer<float>;
template class FfnLayer<double>;

}  // namespace cachalot::train
