// SPDX-License-Identifier: Apache-2.0
#include "cachalot/threading/placement.h"

#include <algorithm>
#include <utility>

#include "cachalot/base/check.h"
#include "cachalot/threading/topology.h"

namespace cachalot {

NodeParts::NodeParts(std::vector<uint32_t> begins) : begins_(std::move(begins)) {
  CACHALOT_CHECK(begins_.size() >= 2 && begins_.front() == 0 && std::ranges::is_sorted(begins_));
}

size_t NodeParts::PartOf(size_t worker) const {
  CACHALOT_CHECK(worker < num_workers());
  const auto after = std::ranges::upper_bound(begins_, worker);
  return static_cast<size_t>(after - begins_.begin()) - 1;
}

NodeParts Placement::Parts() const {
  std::vector<uint32_t> begins = {0};
  for (uint32_t w = 1; w < workers.size(); ++w) {
    if (workers[w].node != workers[w - 1].node) begins.push_back(w);
  }
  begins.push_back(static_cast<uint32_t>(workers.size()));
  return NodeParts(std::move(begins));
}

std::vector<uint32_t> Placement::Cpus(size_t part) const {
  const NodeParts parts = Parts();
  std::vector<uint32_t> cpus;
  for (size_t w = parts.first_worker(part); w < parts.first_worker(part + 1); ++w) {
    cpus.push_back(workers[w].cpu);
  }
  return cpus;
}

Placement PlaceWorkers(std::span<const Core> cores, size_t num_threads, Pinning pinning) {
  CACHALOT_CHECK(!cores.empty() && num_threads >= 1);
  CACHALOT_CHECK(std::ranges::is_sorted(cores, {}, &Core::node));
  Placement placement;
  placement.workers.reserve(num_threads);
  for (size_t w = 0; w < num_threads; ++w) {
    placement.workers.push_back(cores[w * cores.size() / num_threads]);
  }
  const bool fits = num_threads <= cores.size();
  placement.pinned = pinning == Pinning::kOn ? fits
                     : pinning == Pinning::kOff
                         ? false
                         : num_threads == cores.size() && cores.front().node != cores.back().node;
  return placement;
}

Placement PlaceWorkers(size_t num_threads, Pinning pinning) {
  const std::vector<Core> cores = PhysicalCores();
  return PlaceWorkers(cores, num_threads > 0 ? num_threads : NumUsable(cores.size()), pinning);
}

}  // namespace cachalot
