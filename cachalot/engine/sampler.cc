// SPDX-License-Identifier: Apache-2.0
// Order: logit bias, penalties, constraint, temperature, top_k, top_p, min_p, draw. Temperature
// comes before the truncations, as in the OpenAI-compatible servers.
#include "cachalot/engine/sampler.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <limits>
#include <numbers>

#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"

namespace cachalot::engine {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// The first guess at how many tokens a truncation keeps; doubled until it is enough.
constexpr size_t kFirstCandidates = 256;

Error OutOfRange(std::string_view field, double found, std::string_view expected) {
  return {ErrorCode::kInvalidArgument, StrCat(field, " is ", found, ", expected ", expected)};
}

uint32_t ArgMax(std::span<const float> logits) {
  return static_cast<uint32_t>(std::ranges::max_element(logits) - logits.begin());
}

uint64_t NoiseBits(uint64_t seed, uint64_t position, uint32_t id) {
  return CounterRandom(seed, position, id);
}

// Gumbel(0, 1) noise of a token: the argmax of logit + noise is a sample of softmax(logit).
double Gumbel(uint64_t bits) { return -std::log(-std::log(UniformOpen(bits))); }

// True if `logit` + its noise cannot exceed `best`. With u = UniformOpen(bits) it wins only if
// u > exp(-e), e = exp(logit - best), and exp(-e) >= 1 - e, so 1 - u >= e rules it out. 1 - u is at
// least 2^floor(log2(1 - u)), which costs a bit scan instead of two logarithms: all but a handful
// of 129,280 tokens stop here.
bool CannotWin(uint64_t bits, double logit, double best) {
  const double rest = 1.0 - UniformOpen(bits);
  const int floor_log2 = static_cast<int>((std::bit_cast<uint64_t>(rest) >> 52) & 0x7FF) - 1023;
  return floor_log2 >= (logit - best) * std::numbers::log2e;
}

}  // namespace

Status SamplingParams::Validate(uint32_t vocab_size) const {
  // Written so that NaN fails too.
  if (!(temperature >= 0.0f && temperature <= 100.0f)) {
    return OutOfRange("temperature", temperature, "0 to 100");
  }
  if (!(top_p > 0.0f && top_p <= 1.0f)) return OutOfRange("top_p", top_p, "above 0, at most 1");
  if (!(min_p >= 0.0f && min_p <= 1.0f)) return OutOfRange("min_p", min_p, "0 to 1");
  if (!(repetition_penalty > 0.0f && repetition_penalty <= 100.0f)) {
    return OutOfRange("repetition_penalty", repetition_penalty, "above 0, at most 100");
  }
  if (!(std::fabs(presence_penalty) <= 100.0f)) {
    return OutOfRange("presence_penalty", presence_penalty, "-100 to 100");
  }
  if (!(std::fabs(frequency_penalty) <= 100.0f)) {
    return OutOfRange("frequency_penalty", frequency_penalty, "-100 to 100");
  }
  for (const auto& [id, bias] : logit_bias) {
    if (id >= vocab_size) {
      return Error{ErrorCode::kInvalidArgument,
                   StrCat("logit_bias names id ", id, ", the vocabulary has ", vocab_size)};
    }
    if (!std::isfinite(bias)) return OutOfRange("logit_bias", bias, "a finite number");
  }
  return {};
}

Sampler::Sampler(uint32_t vocab_size)
    : order_(vocab_size), mask_((vocab_size + 63) / 64), counts_(vocab_size, 0) {}

uint32_t Sampler::Sample(std::span<float> logits, const TokenHistory& history,
                         const SamplingParams& params, uint64_t position,
                         TokenConstraint* constraint) {
  for (float& logit : logits) {
    if (std::isnan(logit)) logit = kNever;
  }
  for (const auto& [id, bias] : params.logit_bias) logits[id] += bias;
  ApplyPenalties(logits, history, params);
  if (constraint != nullptr) ApplyConstraint(logits, *constraint);
  if (params.temperature == 0.0f) return ArgMax(logits);

  if (params.temperature != 1.0f) {
    for (float& logit : logits) logit /= params.temperature;
  }
  const bool truncates = params.top_k > 0 || params.top_p < 1.0f || params.min_p > 0.0f;
  if (!truncates) return DrawFromAll(logits, params.seed, position);
  return Draw(logits, Truncate(logits, params), params.seed, position);
}

void Sampler::ApplyPenalties(std::span<float> logits, const TokenHistory& history,
                             const SamplingParams& params) {
  if (params.repetition_penalty != 1.0f) {
    const auto repeat = [&](uint32_t id) {
      if (counts_[id]++ > 0) return;  // once an id, however often it was seen
      logits[id] = logits[id] > 0.0f ? logits[id] / params.repetition_penalty
                                     : logits[id] * params.repetition_penalty;
    };
    for (uint32_t id : history.prompt) repeat(id);
    for (uint32_t id : history.generated) repeat(id);
    for (uint32_t id : history.prompt) counts_[id] = 0;
    for (uint32_t id : history.generated) counts_[id] = 0;
  }
  if (params.presence_penalty == 0.0f && params.frequency_penalty == 0.0f) return;
  for (uint32_t id : history.generated) {
    logits[id] -= params.frequency_penalty;
    if (counts_[id]++ == 0) logits[id] -= params.presence_penalty;
  }
  for (uint32_t id : history.generated) counts_[id] = 0;
}

void Sampler::ApplyConstraint(std::span<float> logits, TokenConstraint& constraint) {
  const auto begin = std::chrono::steady_clock::now();
  std::ranges::fill(mask_, ~uint64_t{0});
  constraint.ApplyMask(mask_);
  // Word by word: most masks allow nearly all tokens or nearly none.
  for (size_t first = 0; first < logits.size(); first += 64) {
    const uint64_t word = mask_[first / 64];
    const size_t count = std::min<size_t>(64, logits.size() - first);
    if (word == ~uint64_t{0}) continue;
    if (word == 0) {
      std::ranges::fill(logits.subspan(first, count), kNever);
      continue;
    }
    for (size_t i = 0; i < count; ++i) {
      if (((word >> i) & 1) == 0) logits[first + i] = kNever;
    }
  }
  mask_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The kept ids, largest logit first, ties to the lower id.
std::span<const uint32_t> Sampler::Truncate(std::span<const float> logits,
                                            const SamplingParams& params) {
  const size_t vocab = logits.size();
  const auto better = [&](uint32_t a, uint32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  for (size_t i = 0; i < vocab; ++i) order_[i] = static_cast<uint32_t>(i);
  const double top = *std::ranges::max_element(logits);
  double total = 0.0;
  for (const float logit : logits) total += std::exp(logit - top);

  const size_t most = params.top_k > 0 ? std::min<size_t>(params.top_k, vocab) : vocab;
  size_t sorted = 0;
  size_t kept = 0;
  double sum = 0.0;
  if (most < vocab) {  // top_p is of what top_k left
    std::nth_element(order_.begin(), order_.begin() + static_cast<ptrdiff_t>(most), order_.end(),
                     better);
    total = 0.0;
    for (size_t i = 0; i < most; ++i) total += std::exp(logits[order_[i]] - top);
  }
  while (kept < most) {
    if (kept == sorted) {  // sort some more
      const size_t next = std::min(most, std::max(kFirstCandidates, 2 * sorted));
      const auto begin = order_.begin() + static_cast<ptrdiff_t>(sorted);
      std::partial_sort(begin, order_.begin() + static_cast<ptrdiff_t>(next),
                        order_.begin() + static_cast<ptrdiff_t>(most), better);
      sorted = next;
    }
    const double p = std::exp(logits[order_[kept]] - top);  // relative to the largest
    const bool enough = sum >= params.top_p * total && params.top_p < 1.0f;
    if (kept > 0 && (enough || p < params.min_p || p == 0.0)) break;
    sum += p;
    ++kept;
  }
  return std::span(order_).first(kept);
}

uint32_t Sampler::Draw(std::span<const float> logits, std::span<const uint32_t> ids, uint64_t seed,
                       uint64_t position) {
  uint32_t best = ids[0];
  double best_value = -std::numeric_limits<double>::infinity();
  for (const uint32_t id : ids) {
    const double value = logits[id] + Gumbel(NoiseBits(seed, position, id));
    if (value > best_value) {
      best = id;
      best_value = value;
    }
  }
  return best;
}

// Draw over the whole vocabulary without a logarithm a token.
uint32_t Sampler::DrawFromAll(std::span<const float> logits, uint64_t seed, uint64_t position) {
  uint32_t best = ArgMax(logits);
  double best_value = logits[best] + Gumbel(NoiseBits(seed, position, best));
  for (uint32_t id = 0; id < logits.size(); ++id) {
    const uint64_t bits = NoiseBits(seed, position, id);
    if (CannotWin(bits, logits[id], best_value)) continue;
    const double value = logits[id] + Gumbel(bits);
    if (value > best_value) {
      best = id;
      best_value = value;
    }
  }
  return best;
}

}  // namespace cachalot::engine
