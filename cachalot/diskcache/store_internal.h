// SPDX-License-Identifier: Apache-2.0
// Shared by the files of Store.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <string>

namespace cachalot::diskcache {

inline std::string SegmentName(uint32_t id) { return fmt::format("seg-{:08}.kv", id); }

inline int64_t UnixMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace cachalot::diskcache
