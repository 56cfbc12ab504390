// SPDX-License-Identifier: Apache-2.0
// The KV cache on disk as the commands take it: --kv-disk of serve, --cache of run and chat.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "cachalot/base/error.h"
#include "cachalot/engine/disk_tier.h"

namespace cachalot::cli {

struct CacheFlags {
  std::string dir;
  CLI::Option* option = nullptr;  // the flag that asks for a cache
  uint64_t bytes = uint64_t{64} << 30;
  std::string strategy = "periodic:4096";
  std::string admit = "first";
  uint32_t min_tokens = 512;

  bool wanted() const { return option != nullptr && option->count() > 0; }
  // `dir`, or the user's own folder for it: $XDG_CACHE_HOME/cachalot/kv or ~/.cache/cachalot/kv.
  Result<std::string> Directory() const;
  // Opens the store; without a cache wanted, options without one. `log` may be empty.
  Result<engine::DiskOptions> Open(std::function<void(std::string_view)> log) const;
};

// --kv-disk DIR of serve.
void AddServeCacheFlags(CLI::App& command, CacheFlags& flags);
// --cache [DIR] of run and chat.
void AddRunCacheFlags(CLI::App& command, CacheFlags& flags);

}  // namespace cachalot::cli
