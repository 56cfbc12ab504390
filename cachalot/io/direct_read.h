// SPDX-License-Identifier: Apache-2.0
// How fast a file can be read past the page cache: the limit of whatever streams from disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cachalot/base/error.h"

namespace cachalot::io {

struct DirectReadOptions {
  uint32_t depth = 8;                      // reads in flight, each a thread in pread
  size_t block_bytes = size_t{1} << 20;    // a multiple of 4096
  uint64_t max_bytes = uint64_t{1} << 31;  // stops after so much,
  double max_seconds = 1.0;                // or so long
};

struct DirectReadSpeed {
  double bytes_per_s = 0;
  uint64_t bytes = 0;
};

// Whole blocks of `path` with O_DIRECT, in ascending order, spread over the whole file.
// kUnsupported where the file system has no O_DIRECT (tmpfs, some overlays) or the file is shorter
// than a block; kNotFound and kIo as for any file.
Result<DirectReadSpeed> MeasureDirectReads(const std::string& path,
                                           const DirectReadOptions& options);

}  // namespace cachalot::io
