// SPDX-License-Identifier: Apache-2.0
// cachalot bench: prefill and decode speed beside what the machine can do.
#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/progress.h"
#include "cachalot/eval/speed.h"
#include "cachalot/threading/topology.h"

namespace cachalot::cli {
namespace {

struct BenchFlags {
  EngineFlags engine;
  uint32_t prompt = 512;
  uint32_t decode = 32;
  uint32_t runs = 5;
  bool json = false;
};

struct Ratios {
  double decode_of_bandwidth = 0;
  double prefill_of_bf16 = 0;
  double prefill_flop_per_s = 0;
};

Ratios ComputeRatios(const eval::Speed& s) {
  const auto bytes = static_cast<double>(s.cost.weight_bytes + s.cost.kv_bytes);
  Ratios r;
  r.decode_of_bandwidth = bytes * s.decode_tokens_per_s / s.limits.read_bytes_per_s;
  r.prefill_flop_per_s = static_cast<double>(s.cost.flops) * s.prefill_tokens_per_s;
  if (s.limits.bf16_flop_per_s > 0) {
    r.prefill_of_bf16 = r.prefill_flop_per_s / s.limits.bf16_flop_per_s;
  }
  return r;
}

void PrintTable(const BenchFlags& flags, const eval::Speed& s) {
  const Ratios r = ComputeRatios(s);
  fmt::print(
      "machine   read {:.1f} GB/s, FP32 {:.0f} GFLOP/s, BF16 {:.0f} GFLOP/s, INT8 {:.0f} GOP/s\n",
      s.limits.read_bytes_per_s * 1e-9, s.limits.f32_flop_per_s * 1e-9,
      s.limits.bf16_flop_per_s * 1e-9, s.limits.int8_op_per_s * 1e-9);
  fmt::print("token     {:.3f} GB weights + {:.2f} MB KV read, {:.2f} GFLOP\n",
             static_cast<double>(s.cost.weight_bytes) * 1e-9,
             static_cast<double>(s.cost.kv_bytes) * 1e-6, static_cast<double>(s.cost.flops) * 1e-9);
  fmt::print(
      "prefill   {} tokens: {:.1f} tokens/s, {:.0f} GFLOP/s = {:.0f} % of BF16 peak "
      "(median of {})\n",
      flags.prompt, s.prefill_tokens_per_s, r.prefill_flop_per_s * 1e-9, 100 * r.prefill_of_bf16,
      s.prefill_runs_s.size());
  fmt::print(
      "decode    at {} tokens: {:.2f} tokens/s, p95 {:.1f} ms, {:.0f} % of read bandwidth "
      "(median of {})\n",
      flags.prompt, s.decode_tokens_per_s, s.decode_p95_ms, 100 * r.decode_of_bandwidth,
      s.decode_steps_s.size());
  fmt::print("memory    {} peak resident; {} of it is no mapped weight, KV {}\n",
             FormatBytes(s.peak_resident_bytes), FormatBytes(s.private_bytes),
             FormatBytes(s.kv_bytes_in_use));
}

void PrintJson(const BenchFlags& flags, const eval::Speed& s) {
  const Ratios r = ComputeRatios(s);
  const Json json = {{"prompt_tokens", flags.prompt},
                     {"read_bytes_per_s", s.limits.read_bytes_per_s},
                     {"f32_flop_per_s", s.limits.f32_flop_per_s},
                     {"bf16_flop_per_s", s.limits.bf16_flop_per_s},
                     {"int8_op_per_s", s.limits.int8_op_per_s},
                     {"weight_bytes_per_token", s.cost.weight_bytes},
                     {"kv_bytes_per_token_read", s.cost.kv_bytes},
                     {"flops_per_token", s.cost.flops},
                     {"prefill_tokens_per_s", s.prefill_tokens_per_s},
                     {"prefill_of_bf16_peak", r.prefill_of_bf16},
                     {"decode_tokens_per_s", s.decode_tokens_per_s},
                     {"decode_p95_ms", s.decode_p95_ms},
                     {"decode_of_read_bandwidth", r.decode_of_bandwidth},
                     {"peak_resident_bytes", s.peak_resident_bytes},
                     {"private_bytes", s.private_bytes},
                     {"kv_bytes_in_use", s.kv_bytes_in_use}};
  fmt::print("{}\n", json.dump());
}

Status Bench(const BenchFlags& flags) {
  CACHALOT_TRY(const std::string dir, ResolveModel(flags.engine.model));
  CACHALOT_TRY(const auto weights, model::LoadWeights(dir));
  const eval::SpeedOptions options{
      .numerics = flags.engine.numerics_value(),
      .target = flags.engine.target_value().value_or(kernels::SupportedTargets().front()),
      .num_threads = flags.engine.threads > 0 ? flags.engine.threads : NumPhysicalCores(),
      .prompt_tokens = flags.prompt,
      .decode_tokens = flags.decode,
      .runs = flags.runs};
  InstallInterruptHandler();
  ProgressBar bar("measuring");
  CACHALOT_TRY(const eval::Speed speed,
               eval::MeasureSpeed(weights, options, [&](uint64_t done, uint64_t total) {
                 bar.Update(done, total);
                 return !InterruptRequested();
               }));
  bar.Clear();
  flags.json ? PrintJson(flags, speed) : PrintTable(flags, speed);
  return {};
}

}  // namespace

void RegisterBench(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command =
      app.add_subcommand("bench", "Measure prefill and decode beside the machine's own limits");
  AddEngineFlags(*command, flags->engine, /*with_context=*/false);
  command->add_option("--prompt", flags->prompt, "Tokens of the prompt")
      ->check(CLI::Range(1u, 1u << 20))
      ->capture_default_str();
  command->add_option("--decode", flags->decode, "Tokens decoded after it")
      ->check(CLI::Range(0u, 1u << 16))
      ->capture_default_str();
  command->add_option("--runs", flags->runs, "Counted runs, after one to warm up")
      ->check(CLI::Range(1u, 1000u))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "Print one JSON object");
  SetExamples(*command,
              "cachalot bench\n"
              "cachalot bench -m /tmp/flash6 --threads 2 --prompt 512");
  command->callback([flags, &exit_code] {
    if (const Status status = Bench(*flags); !status.ok()) exit_code = Report(status.error());
  });
}

}  // namespace cachalot::cli
