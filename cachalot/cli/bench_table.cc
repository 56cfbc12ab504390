// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/bench_table.h"

#include "cachalot/base/strings.h"
#include "cachalot/cli/progress.h"
#include "cachalot/eval/bench_stats.h"

namespace cachalot::cli {
namespace {

using eval::Bench;
using eval::Quantile;
using model::StepProfile;

std::string Machine(const Bench& bench, const eval::BenchRun& run) {
  std::string reads;
  for (const double rate : bench.read_bytes_per_s_by_threads) {
    reads += StrCat(reads.empty() ? "" : " / ", fmt::format("{:.1f}", rate * 1e-9));
  }
  const kernels::MachineLimits& l = bench.limits;
  std::string out = fmt::format(
      "machine   {}, {} CPUs, {}\n"
      "limits    read {} GB/s with 1.. threads, best {:.1f}; FP32 {:.0f}, BF16 {:.0f} GFLOP/s, "
      "INT8 {:.0f} GOP/s\n"
      "          widens {:.0f} FP4, {:.0f} FP8 Gweights/s; ",
      run.machine.cpu.empty() ? "unknown CPU" : run.machine.cpu, run.machine.logical_cpus,
      FormatBytes(run.machine.memory_bytes), reads, l.read_bytes_per_s * 1e-9,
      l.f32_flop_per_s * 1e-9, l.bf16_flop_per_s * 1e-9, l.int8_op_per_s * 1e-9,
      bench.widening.fp4_per_s * 1e-9, bench.widening.fp8_per_s * 1e-9);
  out += run.disk_bytes_per_s > 0
             ? fmt::format("disk, direct reads {:.2f} GB/s\n", run.disk_bytes_per_s * 1e-9)
             : "disk not measured\n";
  return out;
}

std::string Prefill(const Bench& bench) {
  std::string out = fmt::format(
      "\nprefill {:>7} {:>7} {:>9} {:>7} {:>10} {:>9} {:>10} {:>8} {:>9}\n", "context", "tokens",
      "tokens/s", "spread", "first tok", "GB/token", "GFLOP/tok", "of limit", "experts");
  for (const eval::PrefillFigures& f : bench.prefill) {
    const double tokens = f.tokens;
    out += fmt::format(
        "        {:>7} {:>7} {:>9.1f} {:>6.1f}% {:>10} {:>9.4f} {:>10.2f} {:>7.0f}% {:>9.1f}\n",
        eval::FormatTokens(f.context) + (f.filled() ? "*" : ""), f.tokens, f.tokens_per_s(),
        100 * eval::Spread(f.run_s), FormatDuration(Quantile(f.run_s, 0.5)),
        static_cast<double>(f.cost.bytes()) / tokens * 1e-9,
        static_cast<double>(f.cost.flops) / tokens * 1e-9, 100 * eval::OfLimit(f, bench),
        f.distinct_experts);
  }
  return out;
}

std::string Decode(const Bench& bench) {
  std::string out =
      fmt::format("\ndecode  {:>7} {:>5} {:>9} {:>7} {:>22} {:>9} {:>9} {:>8} {:>9} {:>8}\n",
                  "context", "batch", "tokens/s", "spread", "p50 / p95 / p99 ms", "GB/step",
                  "GFLOP", "of limit", "widening", "experts");
  for (const eval::DecodeFigures& f : bench.decode) {
    const eval::StepLimit limit = eval::LimitOf(f.cost, bench.limits, bench.widening);
    const double median = Quantile(f.step_s, 0.5);
    out += fmt::format(
        "        {:>7} {:>5} {:>9.2f} {:>6.1f}% {:>22} {:>9.4f} {:>9.2f} {:>7.0f}% {:>8.0f}% "
        "{:>8.1f}\n",
        eval::FormatTokens(f.context) + (f.filled ? "*" : ""), f.batch, f.tokens_per_s(),
        100 * eval::Spread(f.step_s),
        fmt::format("{:.1f} / {:.1f} / {:.1f}", 1e3 * median, 1e3 * Quantile(f.step_s, 0.95),
                    1e3 * Quantile(f.step_s, 0.99)),
        static_cast<double>(f.cost.bytes()) * 1e-9, static_cast<double>(f.cost.flops) * 1e-9,
        100 * eval::OfLimit(f, bench),
        median > 0 ? 100 * limit.seconds_with_widening() / median : 0.0, f.distinct_experts);
  }
  return out +
         "        * filled with random entries. of limit: max(bytes/bandwidth, flops/peak) over "
         "the "
         "time;\n        widening: the same with weights widened once a step added to the flops; "
         "experts: different ones a layer\n";
}

std::string Speculation(const Bench& bench) {
  if (!bench.speculation) return "";
  const eval::SpeculationFigures& f = *bench.speculation;
  return fmt::format(
      "\ndrafts  {:.0f}% accepted; {:.1f} tokens/s with, {:.1f} without: {:.2f} x. A step of two "
      "tokens {:.2f} ms, a draft {:.2f} ms:\n        {:.0f}% of the {:.1f} tokens/s that (1 + "
      "accepted) / (step + draft) allows\n",
      100 * f.acceptance, f.tokens_per_s, f.plain_tokens_per_s, f.gain(), 1e3 * f.verify_s,
      1e3 * f.draft_s, 100 * f.of_formula(), f.formula_tokens_per_s());
}

double Percent(double part, double all) { return all > 0 ? 100 * part / all : 0.0; }

struct Column {
  std::string name;
  const StepProfile* profile;
};

// Decode at the first and the deepest context, the widest batch, and the longest prompt that was
// read (or the last of all).
std::vector<Column> Columns(const Bench& bench) {
  const eval::DecodeFigures* first = &bench.decode.front();
  const eval::DecodeFigures* deep = first;
  const eval::DecodeFigures* wide = first;
  for (const eval::DecodeFigures& f : bench.decode) {
    if (f.context > deep->context) deep = &f;
    if (f.batch > wide->batch) wide = &f;
  }
  std::vector<Column> columns = {{"decode " + eval::FormatTokens(first->context), &first->profile}};
  if (deep != first) {
    columns.push_back({"decode " + eval::FormatTokens(deep->context), &deep->profile});
  }
  if (wide != first) columns.push_back({StrCat("batch ", wide->batch), &wide->profile});
  const eval::PrefillFigures* prompt = &bench.prefill.back();
  for (const eval::PrefillFigures& f : bench.prefill) {
    if (!f.filled()) prompt = &f;
  }
  columns.push_back({"prompt " + eval::FormatTokens(prompt->context), &prompt->profile});
  return columns;
}

// Where the time goes.
std::string Operations(const Bench& bench) {
  const std::vector<Column> columns = Columns(bench);
  std::string out = fmt::format("\ntime in {:<10}", "operation");
  for (const Column& column : columns) out += fmt::format(" {:>11}", column.name);
  const auto row = [&](std::string_view name, auto what, std::string_view words) {
    out += fmt::format("\n        {:<10}", name);
    for (const Column& column : columns) {
      out += fmt::format(" {:>10.1f}%",
                         Percent(column.profile->seconds(what), column.profile->total_seconds()));
    }
    out += StrCat("  ", words);
  };
  for (size_t i = 0; i < model::kNumStepOps; ++i) {
    const auto op = static_cast<model::StepOp>(i);
    row(model::StepOpName(op), op, model::StepOpWords(op));
  }
  row("products", model::StepOpKind::kProduct, "all of wq_a wkv .. head above");
  row("attending", model::StepOpKind::kAttention, "attention and indexer");
  row("the rest", model::StepOpKind::kRest, "mHC, routing, norms and everything else");
  return out + "\n";
}

std::string Memory(const Bench& bench, const eval::BenchRun& run) {
  return fmt::format(
      "\nmemory  {} peak resident: {} mapped (weights), {} private, of that KV {} and scratch {}\n"
      "start   weights usable after {}\n",
      FormatBytes(bench.memory.peak_bytes), FormatBytes(bench.memory.mapped_bytes),
      FormatBytes(bench.memory.private_bytes), FormatBytes(bench.kv_bytes_in_use),
      FormatBytes(bench.scratch_bytes), FormatDuration(run.load_s));
}

}  // namespace

std::string BenchTable(const Bench& bench, const eval::BenchOptions& options,
                       const eval::BenchRun& run) {
  return fmt::format("run       {}, {} numerics on {}, {} threads, {} runs, commit {}\n", run.model,
                     model::NumericsName(options.numerics), kernels::TargetName(options.target),
                     options.num_threads, options.runs, run.commit) +
         Machine(bench, run) + Prefill(bench) + Decode(bench) + Speculation(bench) +
         Operations(bench) + ExpertTable(bench) + Memory(bench, run);
}

}  // namespace cachalot::cli
