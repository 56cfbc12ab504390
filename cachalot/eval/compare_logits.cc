// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/compare_logits.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cachalot/base/check.h"

namespace cachalot::eval {
namespace {

double LogSumExp(std::span<const float> logits) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const float x : logits) largest = std::max(largest, static_cast<double>(x));
  double sum = 0.0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - largest);
  return largest + std::log(sum);
}

// NaN anywhere counts as infinitely far: std::max would silently drop it.
double MaxAbsError(std::span<const float> want, std::span<const float> got) {
  double largest = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::abs(static_cast<double>(want[i]) - static_cast<double>(got[i]));
    if (std::isnan(error)) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, error);
  }
  return largest;
}

double Median(std::vector<double> values) {
  const size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(middle), values.end());
  if (values.size() % 2 == 1) return values[middle];
  const double below =
      *std::max_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(middle));
  return (below + values[middle]) / 2;
}

}  // namespace

double KlDivergence(std::span<const float> want, std::span<const float> got) {
  CACHALOT_CHECK(want.size() == got.size());
  const double want_norm = LogSumExp(want);
  const double got_norm = LogSumExp(got);
  double kl = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double log_p = static_cast<double>(want[i]) - want_norm;
    const double p = std::exp(log_p);
    // 0 log 0 = 0; a masked (-inf) logit would otherwise give 0 * inf.
    if (p != 0.0) kl += p * (log_p - (static_cast<double>(got[i]) - got_norm));
  }
  return std::isnan(kl) ? std::numeric_limits<double>::infinity() : kl;
}

uint32_t Argmax(std::span<const float> logits) {
  uint32_t best = 0;
  for (uint32_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[best] || std::isnan(logits[best])) best = i;
  }
  return best;
}

void LogitComparer::Add(MatView<const float> want, MatView<const float> got) {
  CACHALOT_CHECK(want.rows == got.rows && want.cols == got.cols);
  for (size_t r = 0; r < want.rows; ++r) {
    kls_.push_back(KlDivergence(want.Row(r), got.Row(r)));
    num_argmax_equal_ += Argmax(want.Row(r)) == Argmax(got.Row(r)) ? 1 : 0;
    const double error = MaxAbsError(want.Row(r), got.Row(r));
    num_within_ += error <= abs_tolerance_ ? 1 : 0;
    max_abs_error_ = std::max(max_abs_error_, error);
  }
}

LogitComparison LogitComparer::Summary() const {
  if (kls_.empty()) return {};
  const auto n = static_cast<double>(kls_.size());
  double sum = 0.0;
  for (const double kl : kls_) sum += kl;
  return {.num_positions = kls_.size(),
          .mean_kl = sum / n,
          .median_kl = Median(kls_),
          .max_kl = *std::max_element(kls_.begin(), kls_.end()),
          .argmax_agreement = static_cast<double>(num_argmax_equal_) / n,
          .max_abs_error = max_abs_error_,
          .within_tolerance = static_cast<double>(num_within_) / n};
}

}  // namespace cachalot::eval
