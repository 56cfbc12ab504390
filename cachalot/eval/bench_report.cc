// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/bench_report.h"

#include "cachalot/eval/bench_stats.h"
#include "cachalot/eval/memory_sweep.h"

namespace cachalot::eval {
namespace {

// Bumped when a field changes its meaning; bench/compare refuses to compare two of them.
constexpr int kFormatVersion = 1;

double Share(double limit_s, double seconds) { return seconds > 0 ? limit_s / seconds : 0.0; }

Json CostJson(const model::StepCost& cost, const StepLimit& limit, double tokens) {
  return {{"weight_bytes_per_token", static_cast<double>(cost.weight_bytes) / tokens},
          {"kv_bytes_per_token", static_cast<double>(cost.kv_bytes) / tokens},
          {"flops_per_token", static_cast<double>(cost.flops) / tokens},
          {"read_s", limit.read_s},
          {"compute_s", limit.compute_s},
          {"widening_s", limit.widening_s}};
}

Json ProfileJson(const model::StepProfile& profile) {
  Json json = Json::object();
  const double total = profile.total_seconds();
  for (size_t i = 0; i < model::kNumStepOps; ++i) {
    const auto op = static_cast<model::StepOp>(i);
    json[std::string(model::StepOpName(op))] = Share(profile.seconds(op), total);
  }
  return json;
}

Json PrefillJson(const PrefillFigures& f, const Bench& bench) {
  const StepLimit limit = LimitOf(f.cost, bench.limits, bench.widening);
  const double median = Quantile(f.run_s, 0.5);
  return {{"context", f.context},
          {"tokens", f.tokens},
          {"filled", f.filled()},
          {"tokens_per_s", f.tokens_per_s()},
          {"spread", Spread(f.run_s)},
          {"time_to_first_token_s", median},
          {"run_s", f.run_s},
          {"distinct_experts", f.distinct_experts},
          {"cost", CostJson(f.cost, limit, f.tokens)},
          {"of_limit", Share(limit.seconds(), median)},
          {"of_limit_with_widening", Share(limit.seconds_with_widening(), median)},
          {"profile", ProfileJson(f.profile)},
          {"experts", f.experts.layers.empty() ? Json() : ExpertStatsJson(f.experts)}};
}

Json DecodeJson(const DecodeFigures& f, const Bench& bench) {
  const StepLimit limit = LimitOf(f.cost, bench.limits, bench.widening);
  const double median = Quantile(f.step_s, 0.5);
  return {{"context", f.context},
          {"batch", f.batch},
          {"filled", f.filled},
          {"tokens_per_s", f.tokens_per_s()},
          {"spread", Spread(f.step_s)},
          {"steps", f.step_s.size()},
          {"mean_s", Mean(f.step_s)},
          {"p50_s", median},
          {"p95_s", Quantile(f.step_s, 0.95)},
          {"p99_s", Quantile(f.step_s, 0.99)},
          {"distinct_experts", f.distinct_experts},
          {"cost", CostJson(f.cost, limit, f.batch)},
          {"of_limit", Share(limit.seconds(), median)},
          {"of_limit_with_widening", Share(limit.seconds_with_widening(), median)},
          {"profile", ProfileJson(f.profile)},
          {"experts", f.experts.layers.empty() ? Json() : ExpertStatsJson(f.experts)}};
}

Json SpeculationJson(const SpeculationFigures& f) {
  return {{"acceptance", f.acceptance},
          {"verify_s", f.verify_s},
          {"draft_s", f.draft_s},
          {"tokens_per_s", f.tokens_per_s},
          {"plain_tokens_per_s", f.plain_tokens_per_s},
          {"of_formula", f.of_formula()},
          {"gain", f.gain()}};
}

Json MachineJson(const Bench& bench, const BenchRun& run) {
  return {{"cpu", run.machine.cpu},
          {"logical_cpus", run.machine.logical_cpus},
          {"memory_bytes", run.machine.memory_bytes},
          {"kernel", run.machine.kernel},
          {"read_bytes_per_s", bench.limits.read_bytes_per_s},
          {"read_bytes_per_s_by_threads", bench.read_bytes_per_s_by_threads},
          {"f32_flop_per_s", bench.limits.f32_flop_per_s},
          {"bf16_flop_per_s", bench.limits.bf16_flop_per_s},
          {"int8_op_per_s", bench.limits.int8_op_per_s},
          {"fp4_widened_per_s", bench.widening.fp4_per_s},
          {"fp8_widened_per_s", bench.widening.fp8_per_s},
          {"disk_bytes_per_s", run.disk_bytes_per_s}};
}

}  // namespace

double OfLimit(const DecodeFigures& figures, const Bench& bench) {
  return Share(LimitOf(figures.cost, bench.limits, bench.widening).seconds(),
               Quantile(figures.step_s, 0.5));
}

double OfLimit(const PrefillFigures& figures, const Bench& bench) {
  return Share(LimitOf(figures.cost, bench.limits, bench.widening).seconds(),
               Quantile(figures.run_s, 0.5));
}

Json BenchJson(const Bench& bench, const BenchOptions& options, const BenchRun& run) {
  Json prefill = Json::array();
  for (const PrefillFigures& f : bench.prefill) prefill.push_back(PrefillJson(f, bench));
  Json decode = Json::array();
  for (const DecodeFigures& f : bench.decode) decode.push_back(DecodeJson(f, bench));
  return {{"format", "cachalot-bench"},
          {"version", kFormatVersion},
          {"commit", run.commit},
          {"date", run.date},
          {"command", run.command},
          {"model", run.model},
          {"numerics", model::NumericsName(options.numerics)},
          {"target", kernels::TargetName(options.target)},
          {"threads", options.num_threads},
          {"runs", options.runs},
          {"chunk", options.chunk},
          {"machine", MachineJson(bench, run)},
          {"load_s", run.load_s},
          {"memory",
           {{"peak_bytes", bench.memory.peak_bytes},
            {"mapped_bytes", bench.memory.mapped_bytes},
            {"private_bytes", bench.memory.private_bytes},
            {"kv_bytes", bench.kv_bytes_in_use},
            {"scratch_bytes", bench.scratch_bytes}}},
          {"prefill", prefill},
          {"decode", decode},
          {"speculation", bench.speculation ? SpeculationJson(*bench.speculation) : Json()}};
}

}  // namespace cachalot::eval
