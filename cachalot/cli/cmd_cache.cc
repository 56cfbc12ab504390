// SPDX-License-Identifier: Apache-2.0
// cachalot cache: a look into the KV cache on disk, and its upkeep. [docs/design/disk-cache.md]
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/cache_flags.h"
#include "cachalot/cli/cache_measure.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/progress.h"
#include "cachalot/diskcache/archive.h"
#include "cachalot/diskcache/store.h"
#include "cachalot/eval/bench_stats.h"

namespace cachalot::cli {
namespace {

using diskcache::IndexRoot;
using diskcache::IndexRow;
using diskcache::Key;
using diskcache::RecordKind;
using diskcache::Store;

struct CacheCommandFlags {
  CacheFlags cache;
  std::string key, file, model;
  std::string tokens = "128k";
  uint32_t repeats = 5;
  bool json = false;
  bool off = false;
  bool all = false;
  bool first_token = false;
  double days = 0;
  uint32_t limit = 50;
};

std::string KeyText(const Key& key) { return fmt::format("{:016x}{:016x}", key.high, key.low); }

double AgeSeconds(int64_t ms) {
  const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(
                       std::chrono::system_clock::now().time_since_epoch())
                       .count();
  return std::max(0.0, static_cast<double>(now - ms) / 1e3);
}

std::string AgeText(double seconds) {
  if (seconds < 120) return fmt::format("{:.0f} s", seconds);
  if (seconds < 7200) return fmt::format("{:.0f} min", seconds / 60);
  if (seconds < 172800) return fmt::format("{:.0f} h", seconds / 3600);
  return fmt::format("{:.0f} days", seconds / 86400);
}

// Another process may be writing: then only to look.
Result<std::unique_ptr<Store>> OpenStore(const CacheCommandFlags& flags, bool change) {
  CACHALOT_TRY(const std::string dir, flags.cache.Directory());
  std::error_code error;
  if (!std::filesystem::exists(dir + "/index.db", error)) {
    return Error{ErrorCode::kNotFound, StrCat(dir, ": no KV cache is there")};
  }
  CACHALOT_TRY(auto storage, diskcache::OpenDirectory(dir, change));
  return Store::Open(std::move(storage), {.max_bytes = UINT64_MAX, .read_only = !change});
}

// The record whose key begins with `text`; kNotFound, or kInvalidArgument if there are several.
Result<IndexRow> FindKey(const Store& store, const std::string& text) {
  std::vector<IndexRow> found;
  for (const IndexRow& row : store.Rows()) {
    if (KeyText(row.key).starts_with(text)) found.push_back(row);
  }
  if (found.empty()) {
    return Error{ErrorCode::kNotFound, StrCat("no record '", text, "'; see cachalot cache list")};
  }
  if (found.size() > 1) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(found.size(), " records begin with '", text, "'; give more of the key")};
  }
  return found[0];
}

Status Stat(const CacheCommandFlags& flags) {
  CACHALOT_TRY(const auto store, OpenStore(flags, false));
  struct Sum {
    uint64_t blocks = 0, states = 0, block_bytes = 0, state_bytes = 0, hits = 0, pinned = 0;
    int64_t oldest_ms = INT64_MAX, used_ms = 0;
  };
  std::map<int64_t, Sum> sums;
  uint64_t on_disk = 0;
  CACHALOT_TRY(const std::string dir, flags.cache.Directory());
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    std::error_code error;
    const uint64_t bytes = entry.file_size(error);
    if (!error) on_disk += bytes;
  }
  for (const IndexRow& row : store->Rows()) {
    Sum& sum = sums[row.root];
    const bool block = row.kind == RecordKind::kBlock;
    ++(block ? sum.blocks : sum.states);
    (block ? sum.block_bytes : sum.state_bytes) += row.bytes;
    sum.hits = std::max(sum.hits, row.hits);  // whoever uses a record uses all it stands on
    sum.pinned += row.pinned ? 1 : 0;
    sum.oldest_ms = std::min(sum.oldest_ms, row.created_ms);
    sum.used_ms = std::max(sum.used_ms, row.used_ms);
  }
  Json list = Json::array();
  for (const IndexRoot& root : store->Roots()) {
    const auto found = sums.find(root.id);
    if (found == sums.end()) continue;
    const Sum& sum = found->second;
    list.push_back({{"identity", root.identity},
                    {"scope", fmt::format("{:016x}", root.scope)},
                    {"blocks", sum.blocks},
                    {"tokens", sum.blocks * diskcache::kBlockTokens},
                    {"states", sum.states},
                    {"block_bytes", sum.block_bytes},
                    {"state_bytes", sum.state_bytes},
                    {"hits", sum.hits},
                    {"pinned", sum.pinned},
                    {"oldest_s", AgeSeconds(sum.oldest_ms)},
                    {"last_used_s", AgeSeconds(sum.used_ms)}});
  }
  CACHALOT_TRY(const diskcache::WriteTotals totals, store->Totals());
  const double amplification =
      totals.record_bytes == 0
          ? 0.0
          : static_cast<double>(totals.device_bytes) / static_cast<double>(totals.record_bytes);
  if (flags.json) {
    fmt::print("{}\n", Json({{"directory", dir},
                             {"record_bytes", store->stats().bytes},
                             {"file_bytes", on_disk},
                             {"written_record_bytes", totals.record_bytes},
                             {"written_device_bytes", totals.device_bytes},
                             {"write_amplification", amplification},
                             {"prefixes", list}})
                           .dump());
    return {};
  }
  fmt::print("{}: {} bytes of records in {} bytes of files\n", dir, store->stats().bytes, on_disk);
  fmt::print("written so far: {} bytes of records, {} bytes by files and index: {:.2f} x\n",
             totals.record_bytes, totals.device_bytes, amplification);
  for (const Json& one : list) {
    fmt::print(
        "  {}\n    scope {}: {} tokens in {} blocks ({} bytes), {} states ({} bytes), {} "
        "hits, {} pinned; oldest {}, last used {}\n",
        one["identity"].get<std::string>(), one["scope"].get<std::string>(),
        one["tokens"].get<uint64_t>(), one["blocks"].get<uint64_t>(),
        one["block_bytes"].get<uint64_t>(), one["states"].get<uint64_t>(),
        one["state_bytes"].get<uint64_t>(), one["hits"].get<uint64_t>(),
        one["pinned"].get<uint64_t>(), AgeText(one["oldest_s"].get<double>()),
        AgeText(one["last_used_s"].get<double>()));
  }
  return {};
}

// The ends of stored prefixes: records on which nothing stands, and states.
Status List(const CacheCommandFlags& flags) {
  CACHALOT_TRY(const auto store, OpenStore(flags, false));
  std::vector<IndexRow> rows = store->Rows();
  std::map<std::pair<uint64_t, uint64_t>, size_t> children;
  for (const IndexRow& row : rows) ++children[{row.parent.low, row.parent.high}];
  std::erase_if(rows, [&](const IndexRow& row) {
    return row.kind == RecordKind::kBlock && children.contains({row.key.low, row.key.high});
  });
  std::ranges::sort(rows, std::greater(), &IndexRow::used_ms);
  const size_t count = flags.limit == 0 ? rows.size() : std::min<size_t>(rows.size(), flags.limit);
  Json list = Json::array();
  for (const IndexRow& row : std::span(rows).first(count)) {
    list.push_back({{"key", KeyText(row.key)},
                    {"kind", row.kind == RecordKind::kBlock ? "block" : "state"},
                    {"tokens", row.position},
                    {"bytes", row.bytes},
                    {"age_s", AgeSeconds(row.created_ms)},
                    {"last_used_s", AgeSeconds(row.used_ms)},
                    {"hits", row.hits},
                    {"pinned", row.pinned}});
  }
  if (flags.json) {
    fmt::print("{}\n", list.dump());
    return {};
  }
  fmt::print("{:<14}{:<7}{:>9}{:>12}{:>10}{:>11}{:>6}\n", "key", "kind", "tokens", "bytes", "age",
             "last used", "hits");
  for (const Json& one : list) {
    fmt::print("{:<14}{:<7}{:>9}{:>12}{:>10}{:>11}{:>6}{}\n",
               one["key"].get<std::string>().substr(0, 12), one["kind"].get<std::string>(),
               one["tokens"].get<uint32_t>(), one["bytes"].get<uint32_t>(),
               AgeText(one["age_s"].get<double>()), AgeText(one["last_used_s"].get<double>()),
               one["hits"].get<uint64_t>(), one["pinned"].get<bool>() ? "  pinned" : "");
  }
  if (count < rows.size()) fmt::print("... and {} more (--limit 0)\n", rows.size() - count);
  return {};
}

Status Verify(const CacheCommandFlags& flags) {
  InstallInterruptHandler();
  auto opened = OpenStore(flags, true);
  const bool locked = opened.ok();
  if (!locked && opened.error().code == ErrorCode::kUnavailable) opened = OpenStore(flags, false);
  CACHALOT_TRY(const auto store, std::move(opened));
  const std::vector<IndexRow> rows = store->Rows();
  ProgressBar bar("verifying", "records");
  size_t bad = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (InterruptRequested()) return Error{ErrorCode::kCancelled, StrCat("stopped after ", i)};
    bar.Update(i, rows.size());
    const Status status = diskcache::VerifyRecord(*store, rows[i]);
    if (status.ok()) continue;
    ++bad;
    bar.Clear();
    fmt::print("{}: {}\n", KeyText(rows[i].key), status.error().message);
    store->Forget(rows[i].key);
  }
  bar.Clear();
  if (locked) CACHALOT_RETURN_IF_ERROR(store->Flush());
  fmt::print("{} records, {} damaged{}\n", rows.size(), bad,
             bad == 0 ? ""
             : locked ? ", removed"
                      : ", left for the process that has it open");
  if (bad == 0) return {};
  return Error{ErrorCode::kDataCorruption, StrCat(bad, " of ", rows.size(), " records")};
}

Status Pin(const CacheCommandFlags& flags) {
  CACHALOT_TRY(const auto store, OpenStore(flags, true));
  CACHALOT_TRY(const IndexRow row, FindKey(*store, flags.key));
  return store->SetPinned(row.key, !flags.off);
}

Status Purge(const CacheCommandFlags& flags) {
  if (flags.key.empty() && !flags.all && flags.days <= 0) {
    return Error{ErrorCode::kInvalidArgument, "purge what? Give KEY, --older DAYS or --all"};
  }
  CACHALOT_TRY(const auto store, OpenStore(flags, true));
  const uint64_t before = store->stats().bytes;
  if (!flags.key.empty()) {
    CACHALOT_TRY(const IndexRow row, FindKey(*store, flags.key));
    store->Forget(row.key);
  } else {
    // A record is used whenever one that stands on it is: whole branches go.
    for (const IndexRow& row : store->Rows()) {
      const bool old = flags.days > 0 && AgeSeconds(row.used_ms) > flags.days * 86400;
      if (flags.all || (old && !row.pinned)) store->Forget(row.key);
    }
  }
  CACHALOT_RETURN_IF_ERROR(store->Flush());
  fmt::print("{} bytes removed, {} left\n", before - store->stats().bytes, store->stats().bytes);
  return {};
}

Status Export(const CacheCommandFlags& flags) {
  CACHALOT_TRY(const auto store, OpenStore(flags, false));
  CACHALOT_TRY(const auto count, diskcache::ExportRecords(*store, flags.file));
  fmt::print("{} records to {}\n", count, flags.file);
  return {};
}

Status Import(const CacheCommandFlags& flags) {
  CACHALOT_TRY(const std::string dir, flags.cache.Directory());
  CACHALOT_TRY(auto storage, diskcache::OpenDirectory(dir, true));
  CACHALOT_TRY(const auto store, Store::Open(std::move(storage), {.max_bytes = flags.cache.bytes}));
  CACHALOT_TRY(const auto count, diskcache::ImportRecords(*store, flags.file));
  fmt::print("{} records from {}\n", count, flags.file);
  return {};
}

Status Bench(const CacheCommandFlags& flags) {
  CACHALOT_TRY(const std::string model, ResolveModel(flags.model));
  CACHALOT_TRY(const uint32_t tokens, eval::ParseTokens(flags.tokens));
  if (tokens < diskcache::kBlockTokens) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("--tokens ", tokens, ": expected at least ", diskcache::kBlockTokens)};
  }
  return RunCacheBench({.dir = flags.cache.dir,
                        .model = model,
                        .tokens = tokens,
                        .repeats = flags.repeats,
                        .strategy = flags.cache.strategy,
                        .first_token = flags.first_token});
}

CLI::App* AddVerb(CLI::App& cache, const char* name, const char* help,
                  const std::shared_ptr<CacheCommandFlags>& flags, int& exit_code,
                  Status (*run)(const CacheCommandFlags&)) {
  CLI::App* verb = cache.add_subcommand(name, help);
  verb->add_option("-d,--dir", flags->cache.dir, "Its directory (default: ~/.cache/cachalot/kv)");
  verb->callback([flags, run, &exit_code] {
    const Status status = run(*flags);
    if (!status.ok()) exit_code = Report(status.error());
  });
  return verb;
}

}  // namespace

void RegisterCache(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<CacheCommandFlags>();
  CLI::App* cache = app.add_subcommand("cache", "Look into the KV cache on disk, keep it in order");
  cache->require_subcommand(1);
  CLI::App* stat = AddVerb(*cache, "stat", "Sizes and ages by model", flags, exit_code, Stat);
  CLI::App* list =
      AddVerb(*cache, "list", "Stored prefixes, last used first", flags, exit_code, List);
  for (CLI::App* verb : {stat, list}) verb->add_flag("--json", flags->json, "As JSON");
  list->add_option("--limit", flags->limit, "So many at most; 0: all (default: 50)");
  AddVerb(*cache, "verify", "Read every record, remove what is damaged", flags, exit_code, Verify);
  CLI::App* pin =
      AddVerb(*cache, "pin", "Keep a prefix whatever the budget", flags, exit_code, Pin);
  pin->add_option("KEY", flags->key, "Its key, or how it begins")->required();
  pin->add_flag("--off", flags->off, "No longer");
  CLI::App* purge = AddVerb(*cache, "purge", "Remove prefixes", flags, exit_code, Purge);
  purge->add_option("KEY", flags->key, "That record and all that stands on it");
  purge->add_option("--older", flags->days, "What was not used for so many days");
  purge->add_flag("--all", flags->all, "Everything, pinned or not");
  CLI::App* out = AddVerb(*cache, "export", "All records to a file", flags, exit_code, Export);
  CLI::App* in =
      AddVerb(*cache, "import", "Records of a file, each checked", flags, exit_code, Import);
  for (CLI::App* verb : {out, in}) verb->add_option("FILE", flags->file, "The file")->required();
  CLI::App* bench =
      AddVerb(*cache, "bench", "Store and restore a long prefix, in JSON", flags, exit_code, Bench);
  AddModelOption(*bench, flags->model);
  bench->get_option("--dir")->required();
  bench->add_option("--tokens", flags->tokens, "Its length, e.g. 1M (default: 128k)");
  bench->add_option("--repeats", flags->repeats, "Restores (default: 5)")
      ->check(CLI::Range(1, 1000));
  bench->add_flag("--first-token", flags->first_token,
                  "Load the weights and time requests whose prompt is that prefix, too");
  bench->add_option("--kv-swa", flags->cache.strategy, "As for serve (default: periodic:4096)");
  SetExamples(*cache,
              "cachalot cache stat -d /var/cache/cachalot\n"
              "cachalot cache list --limit 10\n"
              "cachalot cache pin 3f09c2\n"
              "cachalot cache purge --older 30\n"
              "cachalot cache export prefixes.ckv\n"
              "cachalot cache bench -m flash -d /var/cache/try --tokens 1M");
}

}  // namespace cachalot::cli
