// SPDX-License-Identifier: Apache-2.0
// Which expert goes when another needs its slot.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace cachalot::stream {

enum class PolicyKind : uint8_t { kLru, kLfu, kCost };
std::string_view PolicyName(PolicyKind kind);  // "lru"
std::optional<PolicyKind> PolicyFromName(std::string_view name);

// An expert of a layer, counted over all layers.
using ExpertKey = uint32_t;

// Told of every use, of experts in memory or not; asked for values of experts in memory, of which
// the least valuable goes (ties: the lower slot). `now`: tokens the model has seen so far.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  // `num_tokens` tokens of a step chose it.
  virtual void Used(ExpertKey key, uint32_t num_tokens, uint64_t now) = 0;
  virtual double Value(ExpertKey key, uint64_t now) const = 0;
  // A step waited so long for an expert of this layer.
  virtual void Waited(uint32_t /*layer*/, double /*seconds*/) {}
  // Uses of an earlier run, as shares that sum to 1 in a layer.
  virtual void Learned(ExpertKey /*key*/, double /*share*/) {}
};

struct PolicyOptions {
  PolicyKind kind = PolicyKind::kLfu;
  uint32_t num_layers = 0;
  uint32_t num_experts = 0;  // of a layer
  // Tokens after which a use counts half. Short forgets what is popular, long holds on to what was:
  // measured in docs/benchmarks.md.
  double half_life = 1024;
};
std::unique_ptr<EvictionPolicy> MakePolicy(const PolicyOptions& options);

}  // namespace cachalot::stream
