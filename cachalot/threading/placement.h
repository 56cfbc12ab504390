// SPDX-License-Identifier: Apache-2.0
// Which core each worker of a pool runs on, and which workers share a memory node (NUMA). Rows of
// a weight matrix are dealt to nodes as panels of rows are dealt to workers, so that a worker
// multiplies rows that lie in its own node. [docs/design/kernels.md, Memory nodes]
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace cachalot {

// A physical core this process may use.
struct Core {
  uint32_t cpu = 0;   // its first hardware thread that may be used
  uint32_t node = 0;  // memory node, as the system numbers it
};

// How n neighboring things (rows, panels, tasks) are dealt to nodes, in proportion to the workers
// of each. Deterministic, one part without NUMA.
class NodeParts {
 public:
  // `begins`: ascending, of each node's first worker, then the number of workers; at least 2.
  explicit NodeParts(std::vector<uint32_t> begins);

  size_t num() const { return begins_.size() - 1; }
  size_t num_workers() const { return begins_.back(); }
  // Of n, the first that is part p's, p in [0, num()]; Begin(n, num()) == n.
  size_t Begin(size_t n, size_t p) const { return n * begins_[p] / begins_.back(); }
  size_t first_worker(size_t p) const { return begins_[p]; }
  // The part of a worker. O(num()).
  size_t PartOf(size_t worker) const;

 private:
  std::vector<uint32_t> begins_;
};

struct Placement {
  std::vector<Core> workers;  // those of one node are neighbors
  bool pinned = false;        // each worker that a pool starts stays on its core

  NodeParts Parts() const;
  // Of the workers of a part.
  std::vector<uint32_t> Cpus(size_t part) const;
};

// Whether workers are kept on their cores. kAuto: where there are several memory nodes, since a
// worker's rows lie in one of them, and the workers take every core that the process may use (a
// part of the cores may be the same part that another process takes). With one node the system
// places them as well or better (docs/log.md, 2026-11-30).
enum class Pinning : uint8_t { kAuto, kOn, kOff };

// `num_threads` workers on `cores` (ascending by node, at least one), evenly: with half as many
// threads as cores each node gets half of its own. More threads than cores share them, unpinned.
Placement PlaceWorkers(std::span<const Core> cores, size_t num_threads, Pinning pinning);

// On this machine; 0 threads: NumPhysicalCores(). Cost: reads the machine's topology, milliseconds.
Placement PlaceWorkers(size_t num_threads, Pinning pinning = Pinning::kAuto);

}  // namespace cachalot
