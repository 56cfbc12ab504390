// SPDX-License-Identifier: Apache-2.0
// Which CPUs the process runs on, by the user's choice.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot {

// "0,2-5" as taskset and cpusets write it: ascending, without repeats. kInvalidArgument naming the
// part that is no number, a range that runs backwards, or a CPU of 4096 and more.
Result<std::vector<uint32_t>> ParseCpuList(std::string_view text);

// The calling thread and every thread it starts from now on run on these CPUs only, so call it
// before a pool is made; NumPhysicalCores() then counts them. kInvalidArgument if the system lets
// the process have none of them.
Status RestrictToCpus(const std::vector<uint32_t>& cpus);

}  // namespace cachalot
