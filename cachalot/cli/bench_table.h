// SPDX-License-Identifier: Apache-2.0
// A finished benchmark as text for a person.
#pragma once

#include <string>
#include <vector>

#include "cachalot/eval/bench_report.h"
#include "cachalot/eval/memory_sweep.h"

namespace cachalot::cli {

std::string BenchTable(const eval::Bench& bench, const eval::BenchOptions& options,
                       const eval::BenchRun& run);

// What streamed experts cost: of each decode and prefill, and by layer. Empty if none were
// streamed.
std::string ExpertTable(const eval::Bench& bench);
// One line a budget.
std::string MemoryTable(const std::vector<eval::MemoryPoint>& points, double disk_bytes_per_s);

}  // namespace cachalot::cli
