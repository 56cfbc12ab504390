// SPDX-License-Identifier: Apache-2.0
#include "cachalot/stream/policy.h"

#include <algorithm>
#include <cmath>

namespace cachalot::stream {
namespace {

class Lru final : public EvictionPolicy {
 public:
  explicit Lru(const PolicyOptions& o) : last_(size_t{o.num_layers} * o.num_experts) {}
  void Used(ExpertKey key, uint32_t, uint64_t) override { last_[key] = ++uses_; }
  double Value(ExpertKey key, uint64_t) const override { return static_cast<double>(last_[key]); }

 private:
  std::vector<uint64_t> last_;
  uint64_t uses_ = 0;
};

// Sum over past uses of 2^(-age / half_life), kept as its value at the last use.
class Lfu : public EvictionPolicy {
 public:
  explicit Lfu(const PolicyOptions& o)
      : counts_(size_t{o.num_layers} * o.num_experts), half_life_(o.half_life) {}
  void Used(ExpertKey key, uint32_t num_tokens, uint64_t now) override {
    counts_[key] = {.count = Value(key, now) + num_tokens, .at = now};
  }
  double Value(ExpertKey key, uint64_t now) const override {
    const Count& c = counts_[key];
    // A layer may be asked for a step behind the last one.
    const double age = now > c.at ? static_cast<double>(now - c.at) : 0.0;
    return c.count * std::exp2(-age / half_life_);
  }
  // As after a half-life of tokens routed like that.
  void Learned(ExpertKey key, double share) override { counts_[key].count += share * half_life_; }

 private:
  struct Count {
    double count = 0;
    uint64_t at = 0;
  };
  std::vector<Count> counts_;
  double half_life_;
};

// An expert is worth its uses times what a miss of its layer costs. Misses of layers whose experts
// are known early hide behind other work.
class CostAware final : public EvictionPolicy {
 public:
  explicit CostAware(const PolicyOptions& o)
      : uses_(o), num_experts_(o.num_experts), wait_(o.num_layers) {}
  void Used(ExpertKey key, uint32_t num_tokens, uint64_t now) override {
    uses_.Used(key, num_tokens, now);
  }
  double Value(ExpertKey key, uint64_t now) const override {
    return uses_.Value(key, now) * Cost(key / num_experts_);
  }
  void Waited(uint32_t layer, double seconds) override {
    constexpr double kWeight = 1.0 / 64;  // of the newest: steady, yet follows within 100 misses
    double& mean = wait_[layer];
    mean = mean == 0 ? seconds : mean + kWeight * (seconds - mean);
  }
  void Learned(ExpertKey key, double share) override { uses_.Learned(key, share); }

 private:
  // Never far from 1, or a layer without waits (all its experts are here) would lose them.
  double Cost(uint32_t layer) const {
    double sum = 0;
    size_t known = 0;
    for (const double wait : wait_) {
      sum += wait;
      known += wait > 0 ? 1 : 0;
    }
    if (sum == 0 || wait_[layer] == 0) return 1;
    return std::clamp(wait_[layer] * static_cast<double>(known) / sum, 0.5, 2.0);
  }

  Lfu uses_;
  uint32_t num_experts_;
  std::vector<double> wait_;  // by layer, seconds a miss; 0: none yet
};

}  // namespace

std::string_view PolicyName(PolicyKind kind) {
  switch (kind) {
    case PolicyKind::kLru:
      return "lru";
    case PolicyKind::kLfu:
      return "lfu";
    case PolicyKind::kCost:
      return "cost";
  }
  return "";
}

std::optional<PolicyKind> PolicyFromName(std::string_view name) {
  for (const PolicyKind kind : {PolicyKind::kLru, PolicyKind::kLfu, PolicyKind::kCost}) {
    if (name == PolicyName(kind)) return kind;
  }
  return std::nullopt;
}

std::unique_ptr<EvictionPolicy> MakePolicy(const PolicyOptions& options) {
  switch (options.kind) {
    case PolicyKind::kLru:
      return std::make_unique<Lru>(options);
    case PolicyKind::kLfu:
      return std::make_unique<Lfu>(options);
    case PolicyKind::kCost:
      break;
  }
  return std::make_unique<CostAware>(options);
}

}  // namespace cachalot::stream
