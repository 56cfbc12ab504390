// SPDX-License-Identifier: Apache-2.0
#include "cachalot/threading/topology.h"

// Part of it lies under the architecture's own folder: a cross compiler sees the rest only.
#if __has_include(<hwloc/autogen/config.h>)
#include <hwloc.h>
#define CACHALOT_HAS_HWLOC 1
#else
#include <sched.h>
#endif

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

namespace cachalot {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

// CPUs of a cpu.max file, "<quota us> <period us>" or "max <period us>"; 0: no limit.
uint32_t QuotaCpus(const std::string& cpu_max) {
  std::istringstream in(cpu_max);
  uint64_t quota = 0;
  uint64_t period = 0;
  if (!(in >> quota >> period) || quota == 0 || period == 0) return 0;
  // Up: with 1.5 CPUs two threads do more than one, even if the kernel stops them now and then.
  return static_cast<uint32_t>(std::min<uint64_t>((quota - 1) / period + 1, UINT32_MAX));
}

// The v2 line is "0::/path".
std::string CgroupPath(std::string_view self) {
  constexpr std::string_view kPrefix = "0::";
  while (!self.empty()) {
    const std::string_view line = self.substr(0, self.find('\n'));
    if (line.substr(0, kPrefix.size()) == kPrefix) return std::string(line.substr(kPrefix.size()));
    self.remove_prefix(std::min(self.size(), line.size() + 1));
  }
  return {};
}

#ifdef CACHALOT_HAS_HWLOC
// Cores with a hardware thread in this process's affinity mask.
uint32_t AllowedCores() {
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
#else
// Hardware threads: what tells them apart is in the library this build has none of.
uint32_t AllowedCores() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 1;
  return static_cast<uint32_t>(std::max(1, CPU_COUNT(&allowed)));
}
#endif

}  // namespace

uint32_t CgroupCpuLimit(std::string_view self, const std::string& mount) {
  const std::string own = CgroupPath(self);
  if (own.empty() || own.front() != '/') return 0;
  uint32_t limit = 0;
  for (std::string_view path = own;;) {
    const bool at_root = path.size() <= 1;
    const uint32_t cpus = QuotaCpus(ReadText(mount + std::string(path) + "/cpu.max"));
    if (cpus != 0) limit = limit == 0 ? cpus : std::min(limit, cpus);
    if (at_root) return limit;
    path = path.substr(0, path.rfind('/'));
  }
}

uint32_t NumPhysicalCores() {
  const uint32_t cores = AllowedCores();
  const uint32_t limit = CgroupCpuLimit(ReadText("/proc/self/cgroup"), "/sys/fs/cgroup");
  return limit > 0 ? std::min(cores, limit) : cores;
}

}  // namespace cachalot
