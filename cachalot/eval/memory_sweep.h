// SPDX-License-Identifier: Apache-2.0
// Streamed experts under several budgets of memory: figures of each, as JSON and as a chart.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cachalot/base/json.h"
#include "cachalot/eval/bench_report.h"

namespace cachalot::eval {

struct MemoryPoint {
  uint64_t memory_bytes = 0;  // asked for
  uint64_t peak_bytes = 0;    // taken, resident
  Bench bench;
};

// Decode of the first context and batch, or of what follows it, under one budget.
struct StreamFigures {
  double tokens_per_s = 0;
  double hit_rate = 0;
  double read_bytes_per_token = 0;
  double wait_share = 0;        // of the time, waiting for experts
  double read_bytes_per_s = 0;  // bytes read by the time of all steps
  double queue_depth = 0;       // mean, with anything in flight
  // Time of all steps over the larger of what the disk took of it (with reads in flight) and what
  // computing took (not waiting): 1 where one hides the other wholly.
  double over_slower = 0;
};
StreamFigures FiguresOf(const DecodeFigures& decode);

Json ExpertStatsJson(const model::ExpertStats& stats);

// Tokens a second (line) and share of hits (dashes) against memory. An SVG file of its own.
std::string MemoryChart(const std::vector<MemoryPoint>& points, const BenchRun& run);

}  // namespace cachalot::eval
