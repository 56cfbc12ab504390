// SPDX-License-Identifier: Apache-2.0
// What a run measured, step by step: RUN/metrics.csv for spreadsheets, RUN/metrics.jsonl for
// programs and `cachalot plot`.
#pragma once

#include <cstdint>
#include <cstdio>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::train {

struct StepMetrics {
  uint64_t step = 0;    // 0-based, the one just taken
  uint64_t tokens = 0;  // of all steps up to and with it
  double loss = 0;      // next token, nats
  double mtp_loss = 0;
  double balance_loss = 0;
  double indexer_loss = 0;
  double learning_rate = 0;
  double gradient_norm = 0;
  double tokens_per_s = 0;
  // Share of the measured FMA peak: the network's flop in the time of the whole step, and those of
  // Newton-Schulz counted as well.
  double mfu = 0;
  double mfu_with_newton_schulz = 0;
  // Largest of the composite residual map over depth; NaN where it was not measured.
  double mhc_gain = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> residual_gains;  // over depth, two a layer (residual_gain.h); only in JSONL
  std::vector<double> expert_load;     // each layer: largest load of an expert over the mean
  std::optional<double> validation_loss;
  // The step whose loss was a spike, if this is the first step after going back; only in JSONL.
  std::optional<uint64_t> rolled_back_from;
};

// One JSON object; StepFromJson reads it back exactly.
std::string StepToJson(const StepMetrics& metrics);
// kDataCorruption starting with `name`. Unknown fields are ignored, missing numbers are 0.
Result<StepMetrics> StepFromJson(std::string_view line, std::string_view name);

// Appends to both files of a run; every row reaches the system before Append returns, so a killed
// process loses none. Movable.
class MetricsWriter {
 public:
  // Rows of step `from_step` and later, and a last line that a killed process left half written,
  // are cut off first: a resumed run takes those steps again.
  static Result<MetricsWriter> Open(const std::string& run_dir, uint64_t from_step);
  MetricsWriter(MetricsWriter&& other) noexcept;
  MetricsWriter& operator=(MetricsWriter&&) = delete;
  ~MetricsWriter();

  Status Append(const StepMetrics& metrics);

 private:
  MetricsWriter() = default;
  Status Write(std::FILE* file, const std::string& text) const;

  std::string dir_;
  std::FILE* csv_ = nullptr;
  std::FILE* jsonl_ = nullptr;
};

// RUN/metrics.jsonl; a half written last line is left out. kNotFound, kDataCorruption with its
// line.
Result<std::vector<StepMetrics>> ReadMetrics(const std::string& run_dir);

}  // namespace cachalot::train
