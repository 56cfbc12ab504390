// SPDX-License-Identifier: Apache-2.0
// Loading as the engine's flags say: CPUs, plan, progress.
#include <algorithm>

#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/load_plan.h"
#include "cachalot/cli/progress.h"
#include "cachalot/eval/machine_info.h"
#include "cachalot/threading/cpu_list.h"

namespace cachalot::cli {
namespace {

constexpr uint32_t kDefaultContext = 32768;  // EngineOptions::max_context
constexpr uint32_t kDefaultChunk = 512;
// Mapping costs nothing; reading this much takes seconds from any disk.
constexpr uint64_t kLongLoadBytes = uint64_t{2} << 30;

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

}  // namespace

Result<std::shared_ptr<const model::Weights>> LoadModelWeights(const EngineFlags& flags,
                                                               const std::string& dir,
                                                               const LoadUse& use) {
  if (!flags.cpu_list.empty()) {
    CACHALOT_TRY(const std::vector<uint32_t> cpus, ParseCpuList(flags.cpu_list));
    CACHALOT_RETURN_IF_ERROR(RestrictToCpus(cpus));
  }
  CACHALOT_TRY(const LoadPlan plan, MakePlan(flags, dir, use));
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
                                  .progress = [&](uint64_t bytes) {
                                    done += bytes;
                                    bar.Update(done / kMegabyte, plan.weight_bytes / kMegabyte);
                                    return !InterruptRequested();
                                  }});
}

}  // namespace cachalot::cli
