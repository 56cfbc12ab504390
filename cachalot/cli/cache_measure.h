// SPDX-License-Identifier: Apache-2.0
// cachalot cache bench: what storing and restoring a long prefix costs on this disk.
#pragma once

#include <cstdint>
#include <string>

#include "cachalot/base/error.h"

namespace cachalot::cli {

struct CacheBenchOptions {
  std::string dir;       // where the bench makes its own store and removes it again
  std::string model;     // a directory with config.json
  uint32_t tokens = 0;   // of the prefix, at least 128
  uint32_t repeats = 5;  // restores
  std::string strategy = "periodic:4096";
  bool first_token = false;  // loads the weights and also times requests that end in the prefix
};

// Fills a sequence as `bench --fill` does, stores it, restores it into fresh blocks, compares every
// byte, and prints one JSON object: bytes and seconds of both directions, and the rate of plain
// direct reads of the same files, measured in between.
Status RunCacheBench(const CacheBenchOptions& options);

}  // namespace cachalot::cli
