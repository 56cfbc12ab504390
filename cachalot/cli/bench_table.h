// SPDX-License-Identifier: Apache-2.0
// A finished benchmark as text for a person.
#pragma once

#include <string>

#include "cachalot/eval/bench_report.h"

namespace cachalot::cli {

std::string BenchTable(const eval::Bench& bench, const eval::BenchOptions& options,
                       const eval::BenchRun& run);

}  // namespace cachalot::cli
