// SPDX-License-Identifier: Apache-2.0
// What the machine has, as far as this process may use it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/threading/placement.h"

namespace cachalot {

// Physical cores in this process's affinity mask, by memory node; at least one. Hyperthreads of one
// core count once: they share the load ports and vector units that the kernels saturate.
// `simulated` is a machine to look at instead of this one, as hwloc describes them
// ("numa:2 core:4 pu:2"); all of its cores may be used. A build without hwloc (cross builds only)
// sees hardware threads and one node.
std::vector<Core> PhysicalCores(const std::string& simulated = {});

// How many of so many cores this process should use: no more than the CPU time its control group
// grants.
uint32_t NumUsable(size_t cores);
// Of PhysicalCores(). Cost: reads the machine's topology, milliseconds.
uint32_t NumPhysicalCores();

// The smallest CPU quota of the control groups (v2) from this process's own up to the root,
// rounded up to whole CPUs; 0 without one. `self` is the text of /proc/self/cgroup, `mount` where
// the hierarchy is mounted. A container that cannot see its own path finds its limit at the root.
uint32_t CgroupCpuLimit(std::string_view self, const std::string& mount);

}  // namespace cachalot
