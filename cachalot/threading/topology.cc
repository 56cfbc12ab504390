// SPDX-License-Identifier: Apache-2.0
#include "cachalot/threading/topology.h"

#ifdef CACHALOT_HAS_HWLOC
#include <hwloc.h>
#else
#include <sched.h>
#endif

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <thread>
#include <type_traits>

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
struct TopologyDeleter {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using Topology = std::unique_ptr<std::remove_pointer_t<hwloc_topology_t>, TopologyDeleter>;

struct BitmapDeleter {
  void operator()(hwloc_bitmap_t bitmap) const { hwloc_bitmap_free(bitmap); }
};
using Bitmap = std::unique_ptr<std::remove_pointer_t<hwloc_bitmap_t>, BitmapDeleter>;

// Null where hwloc cannot.
Topology LoadTopology(const std::string& simulated) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return nullptr;
  Topology topology(raw);
  if (!simulated.empty() && hwloc_topology_set_synthetic(raw, simulated.c_str()) != 0)
    return nullptr;
  return hwloc_topology_load(raw) == 0 ? std::move(topology) : nullptr;
}

// Hardware threads this process may use; null where the system does not say.
Bitmap AllowedThreads(const Topology& topology, bool all) {
  if (all) return Bitmap(hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(topology.get())));
  Bitmap allowed(hwloc_bitmap_alloc());
  const int got = hwloc_get_cpubind(topology.get(), allowed.get(), HWLOC_CPUBIND_PROCESS);
  return got == 0 ? std::move(allowed) : nullptr;
}

std::vector<Core> FindCores(const std::string& simulated) {
  std::vector<Core> cores;
  const Topology topology = LoadTopology(simulated);
  if (topology == nullptr) return cores;
  const Bitmap allowed = AllowedThreads(topology, !simulated.empty());
  if (allowed == nullptr) return cores;
  const int all = hwloc_get_nbobjs_by_type(topology.get(), HWLOC_OBJ_CORE);
  for (int i = 0; i < all; ++i) {
    const hwloc_obj_t core =
        hwloc_get_obj_by_type(topology.get(), HWLOC_OBJ_CORE, static_cast<unsigned>(i));
    const Bitmap threads(hwloc_bitmap_alloc());
    hwloc_bitmap_and(threads.get(), core->cpuset, allowed.get());
    const int first = hwloc_bitmap_first(threads.get());
    if (first < 0) continue;
    const int node = hwloc_bitmap_first(core->nodeset);
    cores.push_back(
        {.cpu = static_cast<uint32_t>(first), .node = static_cast<uint32_t>(std::max(0, node))});
  }
  return cores;
}
#else
// Hardware threads: what tells them apart is in the library this build has none of.
std::vector<Core> FindCores(const std::string&) {
  std::vector<Core> cores;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return cores;
  for (uint32_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cores.push_back({.cpu = cpu});
  }
  return cores;
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

std::vector<Core> PhysicalCores(const std::string& simulated) {
  std::vector<Core> cores = FindCores(simulated);
  if (cores.empty()) {  // as many as the standard library counts, anywhere
    cores.resize(std::max(1u, std::thread::hardware_concurrency()));
    for (uint32_t cpu = 0; cpu < cores.size(); ++cpu) cores[cpu].cpu = cpu;
  }
  std::ranges::stable_sort(cores, {}, &Core::node);
  return cores;
}

uint32_t NumUsable(size_t cores) {
  const uint32_t limit = CgroupCpuLimit(ReadText("/proc/self/cgroup"), "/sys/fs/cgroup");
  const auto all = static_cast<uint32_t>(cores);
  return limit > 0 ? std::min(all, limit) : all;
}

uint32_t NumPhysicalCores() { return NumUsable(PhysicalCores().size()); }

}  // namespace cachalot
