// SPDX-License-Identifier: Apache-2.0
#include "cachalot/stream/trace.h"

#include <algorithm>
#include <limits>
#include <unordered_map>

namespace cachalot::stream {
namespace {

// A cache as a list of keys: traces are short and replayed once.
template <typename ValueFn, typename UsedFn>
double Replay(const ExpertTrace& trace, size_t num_slots, uint32_t num_experts, size_t warm_asks,
              const UsedFn& used, const ValueFn& value) {
  std::vector<ExpertKey> cached;
  std::unordered_map<ExpertKey, size_t> last_ask;  // that wanted the key
  uint64_t wanted = 0;
  uint64_t hits = 0;
  for (size_t i = 0; i < trace.size(); ++i) {
    const ExpertTrace::Ask ask = trace[i];
    std::vector<ExpertKey> missing;
    for (const model::WantedExpert& w : ask.wanted) {
      const ExpertKey key = ask.layer * num_experts + w.expert;
      used(key, w.num_tokens, i, ask.now);
      last_ask[key] = i;
      const bool hit = std::ranges::find(cached, key) != cached.end();
      if (!hit) missing.push_back(key);
      if (i < warm_asks) continue;
      ++wanted;
      hits += hit ? 1 : 0;
    }
    for (const ExpertKey key : missing) {
      if (cached.size() < num_slots) {
        cached.push_back(key);
        continue;
      }
      // What this ask wants stays, unless there is nothing else.
      size_t victim = 0;
      double least = std::numeric_limits<double>::infinity();
      for (size_t c = 0; c < cached.size(); ++c) {
        if (last_ask[cached[c]] == i) continue;
        const double v = value(cached[c], i, ask.now);
        if (v < least) {
          least = v;
          victim = c;
        }
      }
      cached[victim] = key;
    }
  }
  return wanted == 0 ? 0.0 : static_cast<double>(hits) / static_cast<double>(wanted);
}

}  // namespace

void ExpertTrace::Add(uint32_t layer, uint64_t now, std::span<const model::WantedExpert> wanted) {
  asks_.push_back({layer, static_cast<uint32_t>(wanted.size()), now, wanted_.size()});
  wanted_.insert(wanted_.end(), wanted.begin(), wanted.end());
}

void ExpertTrace::Clear() {
  asks_.clear();
  wanted_.clear();
}

double ReplayHitRate(const ExpertTrace& trace, size_t num_slots, const PolicyOptions& options,
                     size_t warm_asks) {
  const auto policy = MakePolicy(options);
  return Replay(
      trace, num_slots, options.num_experts, warm_asks,
      [&](ExpertKey key, uint32_t tokens, size_t, uint64_t now) { policy->Used(key, tokens, now); },
      [&](ExpertKey key, size_t, uint64_t now) { return policy->Value(key, now); });
}

double BeladyHitRate(const ExpertTrace& trace, size_t num_slots, uint32_t num_experts,
                     size_t warm_asks) {
  std::unordered_map<ExpertKey, std::vector<size_t>> uses;  // asks, ascending
  for (size_t i = 0; i < trace.size(); ++i) {
    for (const model::WantedExpert& w : trace[i].wanted) {
      uses[trace[i].layer * num_experts + w.expert].push_back(i);
    }
  }
  return Replay(
      trace, num_slots, num_experts, warm_asks, [](ExpertKey, uint32_t, size_t, uint64_t) {},
      [&](ExpertKey key, size_t i, uint64_t) {
        const std::vector<size_t>& asks = uses[key];
        const auto next = std::ranges::upper_bound(asks, i);
        return next == asks.end() ? -std::numeric_limits<double>::max()
                                  : -static_cast<double>(*next);
      });
}

}  // namespace cachalot::stream
