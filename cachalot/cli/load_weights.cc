// SPDX-License-Identifier: Apache-2.0
// Loading as the engine's flags say: CPUs, plan, progress.
#include <algorithm>
#include <filesystem>

#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/load_plan.h"
#include "cachalot/cli/progress.h"
#include "cachalot/cli/stream_plan.h"
#include "cachalot/eval/machine_info.h"
#include "cachalot/io/direct_read.h"
#include "cachalot/kernels/machine_limits.h"
#include "cachalot/model/cost.h"
#include "cachalot/stream/load.h"
#include "cachalot/stream/profile.h"
#include "cachalot/threading/cpu_list.h"
#include "cachalot/threading/topology.h"

namespace cachalot::cli {
namespace {

constexpr uint32_t kDefaultContext = 32768;  // EngineOptions::max_context
constexpr uint32_t kDefaultChunk = 512;
// Mapping costs nothing; reading this much takes seconds from any disk.
constexpr uint64_t kLongLoadBytes = uint64_t{2} << 30;

// What the system and others keep when nobody says how much memory to take: at least this, or a
// sixteenth of all.
constexpr uint64_t kLeastReserve = uint64_t{512} << 20;
// Of the process, besides what it has when weights are bound: code, stacks, tokenizer, fragments.
constexpr uint64_t kProcessBytes = uint64_t{64} << 20;
// For the forecast: enough to tell disks apart, not enough to be waited for.
constexpr double kMeasureSeconds = 0.25;
constexpr size_t kMeasureBytes = size_t{64} << 20;

Result<LoadPlan> MakePlan(const EngineFlags& flags, const std::string& dir, const LoadUse& use) {
  CACHALOT_TRY(const model::Config config, model::LoadConfig(dir));
  const eval::MachineInfo machine = eval::ReadMachineInfo();
  LoadPlan plan{.weight_bytes = ShardBytes(dir),
                .available_bytes = machine.available_bytes,
                .memory_bytes = machine.memory_bytes,
                .sequences = use.sequences,
                .must_stay = flags.huge_pages || flags.lock};
  plan.context = use.context > 0 ? use.context
                 : flags.max_context > 0
                     ? flags.max_context
                     : std::min(kDefaultContext, config.max_position_embeddings);
  const auto spec = config.kv_spec(model::KvFormatOf(flags.numerics_value()), /*with_mtp=*/false);
  const uint64_t blocks =
      (uint64_t{plan.context} + kvcache::kBlockTokens - 1) / kvcache::kBlockTokens;
  plan.kv_bytes = use.kv_bytes > 0
                      ? use.kv_bytes
                      : use.sequences * (blocks * spec.block_bytes() + spec.state_bytes());
  const uint32_t chunk = flags.chunk > 0 ? flags.chunk : kDefaultChunk;
  plan.scratch_bytes = EstimateScratchBytes(config, std::max(chunk, use.sequences));
  return plan;
}

// Bytes a second of what streaming leans on: the file system under the largest shard, and memory.
void MeasureSpeeds(const EngineFlags& flags, const std::string& dir, StreamPlan& plan) {
  plan.disk_bytes_per_s = MeasureDisk(dir, kMeasureSeconds);
  const uint32_t threads = flags.threads > 0 ? flags.threads : NumPhysicalCores();
  const auto target = flags.target_value().value_or(kernels::SupportedTargets().front());
  plan.memory_bytes_per_s = kernels::ReadBandwidths(target, threads, kMeasureBytes).back();
}

Result<StreamPlan> MakeStreamPlan(const EngineFlags& flags, const model::Weights& weights,
                                  const LoadPlan& load, uint64_t memory_bytes, const LoadUse& use) {
  const model::Config& config = weights.config;
  StreamPlan plan{.memory_bytes = memory_bytes, .sizes = stream::MeasureStream(weights)};
  plan.chunk = flags.chunk > 0 ? flags.chunk : StreamChunk(config, memory_bytes);
  const uint64_t rows = 2 * uint64_t{use.sequences};  // with a draft each
  plan.scratch_bytes = EstimateScratchBytes(config, std::max(plan.chunk, use.sequences)) +
                       rows * config.vocab_size * sizeof(float);
  // As much again for remembered prefixes, as the engine has it.
  plan.kv_bytes = use.kv_bytes > 0 ? use.kv_bytes : 2 * load.kv_bytes;
  plan.reserved_bytes = eval::ReadMemoryUse().private_bytes + kProcessBytes + use.other_bytes;
  plan.routed_bytes = config.num_hidden_layers * config.num_experts_per_tok * plan.sizes.slot_bytes;
  const model::TokenCost token = model::CostPerToken(weights, 0);
  plan.dense_bytes = token.weight_bytes - token.routed_bytes;
  return plan;
}

Result<std::shared_ptr<const model::Weights>> StreamModel(const EngineFlags& flags,
                                                          const std::string& dir,
                                                          const LoadPlan& load,
                                                          uint64_t memory_bytes,
                                                          const LoadUse& use) {
  CACHALOT_TRY(const auto mapped, model::LoadWeights(dir));
  CACHALOT_TRY(StreamPlan plan, MakeStreamPlan(flags, *mapped, load, memory_bytes, use));
  CACHALOT_RETURN_IF_ERROR(plan.Check());
  MeasureSpeeds(flags, dir, plan);
  fmt::print(stderr, "{}\n", plan.Describe());
  constexpr uint64_t kMegabyte = 1'000'000;
  ProgressBar bar(StrCat("reading ", dir), "MB");
  uint64_t done = 0;
  stream::StreamOptions options{.mirror_dir = flags.weights_mirror,
                                .progress = [&](uint64_t bytes) {
                                  done += bytes;
                                  bar.Update(done / kMegabyte, plan.sizes.dense_bytes / kMegabyte);
                                  return !InterruptRequested();
                                }};
  options.cache.num_slots = plan.num_slots();
  options.cache.policy = *stream::PolicyFromName(flags.expert_policy);  // checked by CLI11
  options.cache.prefetch = flags.expert_prefetch == "on";
  options.cache.record_trace = flags.record_experts;
  options.cache.prefill_chunk = plan.chunk;
  CACHALOT_TRY(auto weights, stream::StreamWeights(*mapped, options));
  if (!flags.expert_profile.empty()) {
    CACHALOT_RETURN_IF_ERROR(stream::LoadProfile(flags.expert_profile, *stream::CacheOf(*weights)));
  }
  return weights;
}

}  // namespace

double MeasureDisk(const std::string& dir, double seconds) {
  constexpr uintmax_t kLeastBytes = uintmax_t{64} << 20;  // a small file says nothing
  std::string largest;
  uintmax_t most = kLeastBytes;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(dir, ignored)) {
    const uintmax_t size = entry.is_regular_file(ignored) ? entry.file_size(ignored) : 0;
    if (size > most) {
      most = size;
      largest = entry.path().string();
    }
  }
  if (largest.empty()) return 0;
  const auto speed = io::MeasureDirectReads(largest, {.max_seconds = seconds});
  return speed.ok() ? speed->bytes_per_s : 0.0;  // "not measured": no direct reads here
}

Status SaveExperience(const EngineFlags& flags, const model::Weights& weights) {
  const stream::ExpertCache* cache = stream::CacheOf(weights);
  if (flags.expert_profile.empty() || cache == nullptr) return {};
  return stream::SaveProfile(flags.expert_profile, *cache);
}

Result<std::shared_ptr<const model::Weights>> LoadModelWeights(const EngineFlags& flags,
                                                               const std::string& dir,
                                                               const LoadUse& use) {
  if (!flags.cpu_list.empty()) {
    CACHALOT_TRY(const std::vector<uint32_t> cpus, ParseCpuList(flags.cpu_list));
    CACHALOT_RETURN_IF_ERROR(RestrictToCpus(cpus));
  }
  CACHALOT_TRY(const LoadPlan plan, MakePlan(flags, dir, use));
  if (!flags.memory.empty()) {
    CACHALOT_TRY(const uint64_t bytes, ParseMemory(flags.memory));
    return StreamModel(flags, dir, plan, bytes, use);
  }
  const bool chosen = flags.mmap || flags.huge_pages || flags.preload || flags.lock;
  if (!plan.fits() && !chosen) {
    const uint64_t reserve = std::max(plan.memory_bytes / 16, kLeastReserve);
    fmt::print(
        stderr,
        "plan: weights of {} do not fit in the {} available; streaming with all but {} of it "
        "(--memory says otherwise, --mmap leaves it to the system)\n",
        FormatBytes(plan.weight_bytes), FormatBytes(plan.available_bytes), FormatBytes(reserve));
    return StreamModel(flags, dir, plan,
                       plan.available_bytes - std::min(reserve, plan.available_bytes), use);
  }
  const bool reads_all = flags.huge_pages || flags.preload || flags.lock;
  if ((reads_all && plan.weight_bytes >= kLongLoadBytes) || !plan.fits()) {
    fmt::print(stderr, "{}\n", plan.Describe());
  }
  CACHALOT_RETURN_IF_ERROR(plan.Check());
  if (!reads_all) {
    const BusyIndicator busy(StrCat("opening ", dir));
    return model::LoadWeights(dir);
  }
  constexpr uint64_t kMegabyte = 1'000'000;
  ProgressBar bar(StrCat("reading ", dir), "MB");
  uint64_t done = 0;
  return model::LoadWeights(dir, {.huge_pages = flags.huge_pages,
                                  .preload = flags.preload || flags.lock,
                                  .lock = flags.lock,
                                  .progress =
                                      [&](uint64_t bytes) {
                                        done += bytes;
                                        bar.Update(done / kMegabyte, plan.weight_bytes / kMegabyte);
                                        return !InterruptRequested();
                                      },
                                  .placement = PlaceWorkers(flags.threads, flags.pinning())});
}

}  // namespace cachalot::cli
