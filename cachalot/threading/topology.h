// SPDX-License-Identifier: Apache-2.0
// What the machine has, as far as this process may use it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cachalot {

// Physical cores this process may use: those of its affinity mask, and no more than the CPU time
// its control group grants; at least 1. Hyperthreads of one core count once: they share the load
// ports and vector units that the kernels saturate.
uint32_t NumPhysicalCores();

// The smallest CPU quota of the control groups (v2) from this process's own up to the root,
// rounded up to whole CPUs; 0 without one. `self` is the text of /proc/self/cgroup, `mount` where
// the hierarchy is mounted. A container that cannot see its own path finds its limit at the root.
uint32_t CgroupCpuLimit(std::string_view self, const std::string& mount);

}  // namespace cachalot
