// SPDX-License-Identifier: Apache-2.0
// A finished benchmark as JSON (docs/benchmarks.md lists the fields) and as a chart.
#pragma once

#include <string>

#include "cachalot/base/json.h"
#include "cachalot/eval/bench.h"

namespace cachalot::eval {

// What the benchmark itself does not know.
struct BenchRun {
  std::string commit;           // "8292631", "-dirty" behind it if files were changed; may be empty
  std::string command;          // as typed
  std::string model;            // its directory
  std::string date;             // UTC, ISO 8601
  double load_s = 0;            // from the call to weights that can be used
  double disk_bytes_per_s = 0;  // O_DIRECT; 0: not measured
  MachineInfo machine;
};

Json BenchJson(const Bench& bench, const BenchOptions& options, const BenchRun& run);

// Speed of decode and prefill against context depth, both axes logarithmic, beside the limits. An
// SVG file of its own, no script, legible on white and black.
std::string BenchChart(const Bench& bench, const BenchRun& run);

// Share of the limit max(bytes / bandwidth, flops / peak) that a figure reaches.
double OfLimit(const DecodeFigures& figures, const Bench& bench);
double OfLimit(const PrefillFigures& figures, const Bench& bench);

}  // namespace cachalot::eval
