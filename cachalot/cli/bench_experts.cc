// SPDX-License-Identifier: Apache-2.0
// The part of a benchmark's text that is about streamed experts.
#include "cachalot/base/strings.h"
#include "cachalot/cli/bench_table.h"
#include "cachalot/cli/expert_stats.h"
#include "cachalot/cli/progress.h"
#include "cachalot/eval/bench_stats.h"

namespace cachalot::cli {
namespace {

using eval::FormatTokens;
using eval::StreamFigures;

double Share(uint64_t part, uint64_t all) {
  return all == 0 ? 0.0 : 100 * static_cast<double>(part) / static_cast<double>(all);
}

std::string DecodeRow(const eval::DecodeFigures& f) {
  const StreamFigures s = eval::FiguresOf(f);
  return fmt::format(
      "decode  {:>7} {:>5} {:>9.2f} {:>6.1f}% {:>10.1f} {:>8.3f} {:>6.0f}% {:>6.1f} {:>7} "
      "{:>6.0f}% {:>7.2f}\n",
      FormatTokens(f.context), f.batch, s.tokens_per_s, 100 * s.hit_rate,
      s.read_bytes_per_token * 1e-6, s.read_bytes_per_s * 1e-9, 100 * s.wait_share, s.queue_depth,
      f.experts.guessed, Share(f.experts.guessed_right, f.experts.guessed), s.over_slower);
}

// Bytes are those of the last part of the prompt where contexts build on each other.
std::string PrefillRow(const eval::PrefillFigures& f) {
  const model::ExpertStats::Layer total = f.experts.Total();
  const double runs = static_cast<double>(std::max<size_t>(1, f.run_s.size()));
  return fmt::format(
      "prompt  {:>7} {:>5} {:>9.2f} {:>6.1f}%   {} read a run, {:.2f} s waited\n",
      FormatTokens(f.context), 1, f.tokens_per_s(), 100 * total.hit_rate(),
      FormatBytes(static_cast<uint64_t>(static_cast<double>(f.experts.read_bytes) / runs)),
      total.wait_seconds / runs);
}

}  // namespace

std::string ExpertTable(const eval::Bench& bench) {
  if (bench.decode.empty() || bench.decode.front().experts.layers.empty()) return "";
  const model::ExpertStats& first = bench.decode.front().experts;
  std::string out =
      fmt::format("\nexperts {} in memory, {} each\n", first.num_slots,
                  FormatBytes(first.slot_bytes)) +
      fmt::format("        {:>7} {:>5} {:>9} {:>7} {:>10} {:>8} {:>7} {:>6} {:>7} {:>7} {:>7}\n",
                  "context", "batch", "tokens/s", "hits", "MB/token", "GB/s", "waiting", "queue",
                  "guesses", "right", "overlap");
  for (const eval::PrefillFigures& f : bench.prefill) out += PrefillRow(f);
  for (const eval::DecodeFigures& f : bench.decode) out += DecodeRow(f);
  out += "        overlap: time over the larger of reading and computing\n";
  return out + "        hits by layer: " + HitsByLayer(first) + "\n";
}

std::string MemoryTable(const std::vector<eval::MemoryPoint>& points, double disk_bytes_per_s) {
  std::string out = fmt::format(
      "disk, direct reads {:.2f} GB/s\n{:>9} {:>9} {:>6} {:>9} {:>7} {:>10} {:>8} {:>8}\n",
      disk_bytes_per_s * 1e-9, "memory", "resident", "slots", "tokens/s", "hits", "MB/token",
      "GB/s", "waiting");
  for (const eval::MemoryPoint& point : points) {
    for (const eval::DecodeFigures& f : point.bench.decode) {
      const StreamFigures s = eval::FiguresOf(f);
      out += fmt::format(
          "{:>9} {:>9} {:>6} {:>9.2f} {:>6.1f}% {:>10.1f} {:>8.3f} {:>7.0f}%  {} x {}\n",
          FormatBytes(point.memory_bytes), FormatBytes(point.peak_bytes), f.experts.num_slots,
          s.tokens_per_s, 100 * s.hit_rate, s.read_bytes_per_token * 1e-6,
          s.read_bytes_per_s * 1e-9, 100 * s.wait_share, FormatTokens(f.context), f.batch);
    }
  }
  return out;
}

}  // namespace cachalot::cli
