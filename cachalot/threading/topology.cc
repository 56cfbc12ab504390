// SPDX-License-Identifier: Apache-2.0
#include "cachalot/threading/topology.h"

#include <hwloc.h>

#include <algorithm>
#include <thread>

namespace cachalot {

uint32_t NumPhysicalCores() {
  const uint32_t fallback = std::max(1u, std::thread::hardware_concurrency());
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) != 0) return fallback;
  uint32_t cores = 0;
  hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
  if (hwloc_topology_load(topology) == 0 &&
      hwloc_get_cpubind(topology, allowed, HWLOC_CPUBIND_PROCESS) == 0) {
    const int all = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
    for (int i = 0; i < all; ++i) {
      hwloc_obj_t core = hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, static_cast<unsigned>(i));
      if (hwloc_bitmap_intersects(core->cpuset, allowed)) ++cores;
    }
  }
  hwloc_bitmap_free(allowed);
  hwloc_topology_destroy(topology);
  return cores > 0 ? cores : fallback;
}

}  // namespace cachalot
