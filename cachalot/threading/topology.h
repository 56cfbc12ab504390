// SPDX-License-Identifier: Apache-2.0
// What the machine has, as far as this process may use it.
#pragma once

#include <cstdint>

namespace cachalot {

// Physical cores this process may run on (its affinity mask), at least 1. Hyperthreads of one core
// count once: they share the load ports and vector units that the kernels saturate.
uint32_t NumPhysicalCores();

}  // namespace cachalot
