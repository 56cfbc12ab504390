// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/cache_flags.h"

#include <cstdlib>
#include <filesystem>

#include "cachalot/base/strings.h"

namespace cachalot::cli {
namespace {

void AddCommon(CLI::App& command, CacheFlags& flags) {
  const auto add = [&command](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group("Cache on disk");
  };
  add("--kv-disk-size", flags.bytes, "Bytes it may take, e.g. 64G (default: 64G)")
      ->transform(CLI::AsSizeValue(false));
  add("--kv-swa", flags.strategy,
      "What is kept of windows: full, periodic:TOKENS, zero (replayed), bounded (replayed "
      "approximately) (default: periodic:4096)");
  add("--kv-disk-min", flags.min_tokens, "Shorter prefixes are not written (default: 512)");
  add("--kv-disk-admit", flags.admit,
      "first: write what is new; second: only what was asked for before (default: first)")
      ->check(CLI::IsMember({"first", "second"}));
}

}  // namespace

Result<std::string> CacheFlags::Directory() const {
  if (!dir.empty()) return dir;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path path;
  if (cache != nullptr && *cache != '\0') {
    path = cache;
  } else if (home != nullptr && *home != '\0') {
    path = std::filesystem::path(home) / ".cache";
  } else {
    return Error{ErrorCode::kInvalidArgument, "HOME is not set; give the cache's directory"};
  }
  path = path / "cachalot" / "kv";
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return Error{ErrorCode::kIo, StrCat(path.string(), ": ", error.message())};
  return path.string();
}

Result<engine::DiskOptions> CacheFlags::Open(std::function<void(std::string_view)> log) const {
  engine::DiskOptions options{.min_tokens = min_tokens, .second_sight = admit == "second"};
  CACHALOT_RETURN_IF_ERROR(engine::ParseWindowStrategy(strategy, options));
  if (!wanted()) return options;
  CACHALOT_TRY(const std::string path, Directory());
  CACHALOT_TRY(auto storage, diskcache::OpenDirectory(path, /*lock=*/true));
  CACHALOT_TRY(options.store, diskcache::Store::Open(std::move(storage),
                                                     {.max_bytes = bytes, .log = std::move(log)}));
  return options;
}

void AddServeCacheFlags(CLI::App& command, CacheFlags& flags) {
  flags.option = command
                     .add_option("--kv-disk", flags.dir,
                                 "Directory that keeps prefixes over restarts (default: none)")
                     ->group("Cache on disk");
  AddCommon(command, flags);
}

void AddRunCacheFlags(CLI::App& command, CacheFlags& flags) {
  flags.option = command
                     .add_option("--cache", flags.dir,
                                 "Keep what was computed on disk, in DIR (default without DIR: "
                                 "~/.cache/cachalot/kv)")
                     ->expected(0, 1)
                     ->group("Cache on disk");
  AddCommon(command, flags);
}

}  // namespace cachalot::cli
