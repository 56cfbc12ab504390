// SPDX-License-Identifier: Apache-2.0
// cachalot bench: prefill and decode speed beside what the machine can do.
#include <algorithm>
#include <chrono>
#include <ctime>

#include "cachalot/base/strings.h"
#include "cachalot/cli/bench_table.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/progress.h"
#include "cachalot/cli/stream_plan.h"
#include "cachalot/eval/bench_report.h"
#include "cachalot/eval/bench_stats.h"
#include "cachalot/eval/memory_sweep.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/stream/load.h"
#include "cachalot/stream/trace.h"
#include "cachalot/threading/topology.h"
#include CACHALOT_COMMIT_HEADER

namespace cachalot::cli {
namespace {

// --fill alone reaches us as CLI11's value of a bare flag.
bool FillsAll(const std::string& text) { return text.empty() || text == "true" || text == "0"; }

struct BenchFlags {
  EngineFlags engine;
  std::string contexts = "512,2k,8k";
  std::string batches = "1";
  std::string fill = "8k";
  uint32_t decode = 32;
  uint32_t runs = 5;
  std::string chart;
  std::string out;
  bool json = false;
  std::string command;  // as typed
};

Result<eval::BenchOptions> ToOptions(const BenchFlags& flags) {
  eval::BenchOptions options{
      .numerics = flags.engine.numerics_value(),
      .target = flags.engine.target_value().value_or(kernels::SupportedTargets().front()),
      .num_threads = flags.engine.threads > 0 ? flags.engine.threads : NumPhysicalCores(),
      .pinning = flags.engine.pinning(),
      .decode_tokens = flags.decode,
      .runs = flags.runs};
  // Under --memory it would take the room of experts.
  if (flags.engine.memory.empty()) options.limit_buffer_bytes = kernels::BytesPastCaches();
  CACHALOT_TRY(options.contexts, eval::ParseTokenList(flags.contexts));
  CACHALOT_TRY(options.batches, eval::ParseTokenList(flags.batches));
  options.fill_beyond = 0;
  if (!FillsAll(flags.fill)) {
    CACHALOT_TRY(options.fill_beyond, eval::ParseTokens(flags.fill));
  }
  if (flags.engine.chunk > 0) options.chunk = flags.engine.chunk;
  return options;
}

// How other policies, and the best possible one, would have done on what this run asked for.
std::string ReplayText(const model::Weights& weights) {
  stream::ExpertCache* cache = stream::CacheOf(weights);
  if (cache == nullptr || cache->trace().size() == 0) return "";
  const size_t slots = cache->stats().num_slots;
  stream::PolicyOptions policy = cache->policy_options();
  const size_t warm = cache->trace().size() / 4;
  std::string text = fmt::format("replayed with {} slots, after the first quarter: hits", slots);
  for (const auto kind : {stream::PolicyKind::kLru, stream::PolicyKind::kLfu}) {
    policy.kind = kind;
    text += fmt::format(" {} {:.1f} %,", stream::PolicyName(kind),
                        100 * stream::ReplayHitRate(cache->trace(), slots, policy, warm));
  }
  return text +
         fmt::format(" Belady {:.1f} %\n",
                     100 * stream::BeladyHitRate(cache->trace(), slots, policy.num_experts, warm));
}

std::string UtcNow() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  const size_t length = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return {text, length};
}

// Loads and measures under the flags' memory. `options` gets the chunk that the weights want.
Result<eval::Bench> Measure(const EngineFlags& flags, eval::BenchOptions& options,
                            eval::BenchRun& run, std::string& replay) {
  const LoadUse use{.sequences = options.batches.back(),
                    .kv_bytes = 0,
                    .context = options.contexts.front(),
                    .other_bytes = options.limit_buffer_bytes};
  const auto begin = std::chrono::steady_clock::now();
  CACHALOT_TRY(const auto weights, LoadModelWeights(flags, run.model, use));
  run.load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (flags.chunk == 0 && weights->expert_source != nullptr) {
    options.chunk = weights->expert_source->prefill_chunk();
  }
  ProgressBar bar("measuring", "steps");
  CACHALOT_TRY(eval::Bench bench,
               eval::RunBench(weights, options, [&](uint64_t done, uint64_t total) {
                 bar.Update(done, total);
                 return !InterruptRequested();
               }));
  bar.Clear();
  replay = ReplayText(*weights);
  CACHALOT_RETURN_IF_ERROR(SaveExperience(flags, *weights));
  return bench;
}

// One budget after the other, in ascending order, so that a peak is the budget's own.
Status Sweep(const BenchFlags& flags, std::vector<uint64_t> budgets, eval::BenchOptions options,
             eval::BenchRun run) {
  std::ranges::sort(budgets);
  std::vector<eval::MemoryPoint> points;
  Json json = Json::array();
  std::string replays;
  for (const uint64_t budget : budgets) {
    EngineFlags engine = flags.engine;
    engine.memory = StrCat(budget);
    engine.record_experts = true;
    std::string replay;
    CACHALOT_TRY(eval::Bench bench, Measure(engine, options, run, replay));
    replays += replay;
    json.push_back(eval::BenchJson(bench, options, run));
    json.back()["memory_bytes"] = budget;
    points.push_back({budget, bench.memory.peak_bytes, std::move(bench)});
  }
  fmt::print("{}\n",
             flags.json ? json.dump(1) : MemoryTable(points, run.disk_bytes_per_s) + replays);
  if (!flags.out.empty()) {
    CACHALOT_RETURN_IF_ERROR(io::WriteFileAtomic(flags.out, json.dump(1) + "\n"));
  }
  if (flags.chart.empty()) return {};
  return io::WriteFileAtomic(flags.chart, eval::MemoryChart(points, run));
}

Status Bench(const BenchFlags& flags) {
  CACHALOT_TRY(eval::BenchOptions options, ToOptions(flags));
  eval::BenchRun run{.commit = CACHALOT_COMMIT,
                     .command = flags.command,
                     .date = UtcNow(),
                     .machine = eval::ReadMachineInfo()};
  CACHALOT_TRY(run.model, ResolveModel(flags.engine.model));
  run.disk_bytes_per_s = MeasureDisk(run.model, 1.0);
  InstallInterruptHandler();
  EngineFlags engine = flags.engine;
  if (!engine.memory.empty()) {
    CACHALOT_TRY(std::vector<uint64_t> budgets, ParseMemoryList(engine.memory));
    if (budgets.size() > 1) return Sweep(flags, std::move(budgets), options, run);
    engine.record_experts = true;
  }
  std::string replay;
  CACHALOT_TRY(const eval::Bench bench, Measure(engine, options, run, replay));
  const std::string json = eval::BenchJson(bench, options, run).dump(1);
  fmt::print("{}\n", flags.json ? json : BenchTable(bench, options, run) + replay);
  if (!flags.out.empty()) CACHALOT_RETURN_IF_ERROR(io::WriteFileAtomic(flags.out, json + "\n"));
  if (flags.chart.empty()) return {};
  return io::WriteFileAtomic(flags.chart, eval::BenchChart(bench, run));
}

void AddBenchFlags(CLI::App& command, BenchFlags& flags) {
  AddEngineFlags(command, flags.engine, /*with_context=*/false);
  command.add_option("--contexts", flags.contexts, "Context depths, as in 512,32k,1M")
      ->capture_default_str();
  command
      .add_option("--fill", flags.fill,
                  "Contexts beyond so many tokens are filled with random KV entries instead of "
                  "read; 0 or alone: all (default: 8k)")
      ->expected(0, 1);  // no default_str: CLI11 would take it for the value of a bare --fill
  command.add_option("--batch", flags.batches, "Sequences decoded together, as in 1,2,4,8,16,32")
      ->capture_default_str();
  command.add_option("--decode", flags.decode, "Tokens decoded a run and context, by 16")
      ->check(CLI::Range(1u, 1u << 16))
      ->capture_default_str();
  command.add_option("--runs", flags.runs, "Counted runs, after one to warm up")
      ->check(CLI::Range(1u, 1000u))
      ->capture_default_str();
  command.add_option("--chart", flags.chart, "Write speed against context depth as SVG to FILE");
  command.add_option("--out", flags.out, "Write the JSON to FILE too (bench/compare reads two)");
  command.add_flag("--json", flags.json, "Print one JSON object instead of the table");
  SetExamples(command,
              "cachalot bench\n"
              "cachalot bench -m /tmp/flash6 --threads 2 --batch 1,8,32 --out new.json\n"
              "cachalot bench -m /tmp/flash6 --contexts 8k,128k,1M --fill --chart depth.svg\n"
              "cachalot bench -m /tmp/flash6 --memory 4G,6G,8G --contexts 512 --chart memory.svg\n"
              "bench/compare old.json new.json");
}

}  // namespace

void RegisterBench(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command =
      app.add_subcommand("bench", "Measure prefill and decode beside the machine's own limits");
  AddBenchFlags(*command, *flags);
  command->callback([flags, command, &exit_code] {
    flags->command = "cachalot bench";
    for (const CLI::Option* option : command->get_options()) {
      if (option->count() == 0) continue;
      flags->command += StrCat(" ", option->get_name());
      for (const std::string& value : option->results()) flags->command += StrCat(" ", value);
    }
    if (const Status status = Bench(*flags); !status.ok()) exit_code = Report(status.error());
  });
}

}  // namespace cachalot::cli
