// SPDX-License-Identifier: Apache-2.0
// What steps asked of the experts, recorded, and how caches of other sizes and policies would have
// done on it, the best possible one (Belady: evict what is needed furthest in the future) included.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cachalot/model/expert_source.h"
#include "cachalot/stream/policy.h"

namespace cachalot::stream {

class ExpertTrace {
 public:
  struct Ask {
    uint32_t layer = 0;
    uint64_t now = 0;  // tokens seen before it
    std::span<const model::WantedExpert> wanted;
  };

  void Add(uint32_t layer, uint64_t now, std::span<const model::WantedExpert> wanted);
  void Clear();
  size_t size() const { return asks_.size(); }
  Ask operator[](size_t i) const {
    const Stored& s = asks_[i];
    return {s.layer, s.now, std::span(wanted_).subspan(s.begin, s.count)};
  }

 private:
  struct Stored {
    uint32_t layer;
    uint32_t count;
    uint64_t now;
    size_t begin;
  };
  std::vector<Stored> asks_;
  std::vector<model::WantedExpert> wanted_;
};

// Share of the experts asked for that were in memory, from an empty cache of `num_slots` slots.
// `warm_asks`: the first ones fill it and are not counted. An ask that wants more experts than
// there are slots keeps the last ones it read.
double ReplayHitRate(const ExpertTrace& trace, size_t num_slots, const PolicyOptions& policy,
                     size_t warm_asks = 0);
double BeladyHitRate(const ExpertTrace& trace, size_t num_slots, uint32_t num_experts,
                     size_t warm_asks = 0);

}  // namespace cachalot::stream
