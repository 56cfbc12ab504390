// SPDX-License-Identifier: Apache-2.0
#include "cachalot/threading/cpu_list.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include "cachalot/base/strings.h"

namespace cachalot {
namespace {

constexpr uint32_t kMaxCpus = 4096;

bool ParseNumber(std::string_view text, uint32_t& value) {
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  return parsed.ec == std::errc() && parsed.ptr == end && value < kMaxCpus;
}

// CPU_ALLOC: a set of 4096, where cpu_set_t stops at 1024.
struct FreeSet {
  void operator()(cpu_set_t* set) const { CPU_FREE(set); }
};

}  // namespace

Result<std::vector<uint32_t>> ParseCpuList(std::string_view text) {
  std::vector<uint32_t> cpus;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    const size_t dash = part.find('-');
    uint32_t first = 0;
    uint32_t last = 0;
    bool ok = ParseNumber(part.substr(0, dash), first);
    last = first;
    if (ok && dash != std::string_view::npos) ok = ParseNumber(part.substr(dash + 1), last);
    if (!ok || last < first) {
      return Error{ErrorCode::kInvalidArgument,
                   StrCat("CPU list '", text, "': '", part, "' is no CPU below ", kMaxCpus,
                          " or ascending range, as in 0,2-5")};
    }
    for (uint32_t cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    begin = end + 1;
  }
  std::ranges::sort(cpus);
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  return cpus;
}

Status RestrictToCpus(const std::vector<uint32_t>& cpus) {
  const size_t bytes = CPU_ALLOC_SIZE(kMaxCpus);
  const std::unique_ptr<cpu_set_t, FreeSet> set(CPU_ALLOC(kMaxCpus));
  if (set == nullptr) return Error{ErrorCode::kResourceExhausted, "no memory for a CPU set"};
  CPU_ZERO_S(bytes, set.get());
  for (const uint32_t cpu : cpus) CPU_SET_S(cpu, bytes, set.get());
  if (sched_setaffinity(0, bytes, set.get()) != 0) {
    return Error{
        ErrorCode::kInvalidArgument,
        StrCat("none of the CPUs of the list may be used by this process: ", std::strerror(errno))};
  }
  return {};
}

}  // namespace cachalot
