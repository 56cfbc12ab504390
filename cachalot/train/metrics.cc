// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/metrics.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <utility>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::train {
namespace {

constexpr uint64_t kMaxMetricsBytes = uint64_t{4} << 30;
constexpr const char* kCsvName = "/metrics.csv";
constexpr const char* kJsonName = "/metrics.jsonl";

// Every plain number, with its name in both files.
struct Field {
  const char* name;
  double StepMetrics::*value;
};
constexpr Field kFields[] = {{"loss", &StepMetrics::loss},
                             {"mtp_loss", &StepMetrics::mtp_loss},
                             {"balance_loss", &StepMetrics::balance_loss},
                             {"indexer_loss", &StepMetrics::indexer_loss},
                             {"learning_rate", &StepMetrics::learning_rate},
                             {"gradient_norm", &StepMetrics::gradient_norm},
                             {"tokens_per_s", &StepMetrics::tokens_per_s},
                             {"mfu", &StepMetrics::mfu},
                             {"mfu_with_newton_schulz", &StepMetrics::mfu_with_newton_schulz},
                             {"mhc_gain", &StepMetrics::mhc_gain}};

struct NumberList {
  const char* name;
  std::vector<double> StepMetrics::*values;
};
constexpr NumberList kLists[] = {{"expert_load", &StepMetrics::expert_load},
                                 {"residual_gains", &StepMetrics::residual_gains}};

std::string CsvHeader() {
  std::string line = "step,tokens";
  for (const Field& field : kFields) line += StrCat(",", field.name);
  return line + ",max_expert_load,validation_loss\n";
}

// Shortest text that reads back to the same double.
std::string CsvLine(const StepMetrics& m) {
  std::string line = StrCat(m.step, ",", m.tokens);
  for (const Field& field : kFields) {
    line += ",";
    if (std::isfinite(m.*field.value)) line += StrCat(m.*field.value);  // else empty
  }
  double load = 0;
  for (const double layer : m.expert_load) load = std::max(load, layer);
  line += StrCat(",", load, ",");
  if (m.validation_loss) line += StrCat(*m.validation_loss);
  return line + "\n";
}

// JSON has no infinity or NaN: null, which reads back as NaN.
Json Number(double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); }

Result<double> NumberFrom(const Json& value, const char* field, std::string_view name) {
  if (value.is_null()) return std::nan("");
  if (value.is_number()) return value.get<double>();
  return Error{ErrorCode::kDataCorruption, StrCat(name, ": ", field, " is no number")};
}

// Complete lines of a file that may not exist.
Result<std::vector<std::string>> CompleteLines(const std::string& path) {
  auto text = io::ReadFile(path, kMaxMetricsBytes);
  if (!text.ok()) return text.error();
  std::vector<std::string> lines;
  for (size_t at = 0; at < text->size();) {
    const size_t end = text->find('\n', at);
    if (end == std::string::npos) break;
    lines.push_back(text->substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

}  // namespace

std::string StepToJson(const StepMetrics& m) {
  Json json = {{"step", m.step}, {"tokens", m.tokens}};
  for (const Field& field : kFields) json[field.name] = Number(m.*field.value);
  for (const NumberList& list : kLists) {
    Json numbers = Json::array();
    for (const double number : m.*list.values) numbers.push_back(Number(number));
    json[list.name] = numbers;
  }
  if (m.validation_loss) json["validation_loss"] = Number(*m.validation_loss);
  if (m.rolled_back_from) json["rolled_back_from"] = *m.rolled_back_from;
  return json.dump();
}

Result<StepMetrics> StepFromJson(std::string_view line, std::string_view name) {
  CACHALOT_TRY(const Json json, ParseJson(line, name));
  const auto whole = [&](const char* key) {
    const auto field = json.find(key);
    return field != json.end() && field->is_number_unsigned()
               ? std::optional<uint64_t>(field->get<uint64_t>())
               : std::nullopt;
  };
  if (!json.is_object() || !whole("step") || !whole("tokens")) {
    return Error{ErrorCode::kDataCorruption, StrCat(name, ": has no step and tokens")};
  }
  StepMetrics m{.step = *whole("step"), .tokens = *whole("tokens")};
  for (const Field& field : kFields) {
    const auto value = json.find(field.name);
    if (value == json.end()) continue;
    CACHALOT_TRY(m.*field.value, NumberFrom(*value, field.name, name));
  }
  for (const NumberList& list : kLists) {
    const auto numbers = json.find(list.name);
    if (numbers == json.end() || !numbers->is_array()) continue;
    for (const Json& number : *numbers) {
      CACHALOT_TRY(const double value, NumberFrom(number, list.name, name));
      (m.*list.values).push_back(value);
    }
  }
  if (const auto loss = json.find("validation_loss"); loss != json.end()) {
    CACHALOT_TRY(m.validation_loss, NumberFrom(*loss, "validation_loss", name));
  }
  m.rolled_back_from = whole("rolled_back_from");
  return m;
}

Result<MetricsWriter> MetricsWriter::Open(const std::string& run_dir, uint64_t from_step) {
  std::vector<StepMetrics> kept;
  auto read = ReadMetrics(run_dir);
  if (!read.ok() && read.error().code != ErrorCode::kNotFound) return read.error();
  std::string csv = CsvHeader();
  std::string jsonl;
  for (const StepMetrics& m : read.ok() ? *read : kept) {
    if (m.step >= from_step) continue;
    csv += CsvLine(m);
    jsonl += StepToJson(m) + "\n";
  }
  MetricsWriter writer;
  writer.dir_ = run_dir;
  CACHALOT_RETURN_IF_ERROR(io::WriteFileAtomic(run_dir + kCsvName, csv));
  CACHALOT_RETURN_IF_ERROR(io::WriteFileAtomic(run_dir + kJsonName, jsonl));
  writer.csv_ = std::fopen((run_dir + kCsvName).c_str(), "ae");
  writer.jsonl_ = std::fopen((run_dir + kJsonName).c_str(), "ae");
  if (writer.csv_ == nullptr || writer.jsonl_ == nullptr) {
    return Error{ErrorCode::kIo,
                 StrCat(run_dir, ": cannot append metrics: ", std::strerror(errno))};
  }
  return writer;
}

MetricsWriter::MetricsWriter(MetricsWriter&& other) noexcept
    : dir_(std::move(other.dir_)),
      csv_(std::exchange(other.csv_, nullptr)),
      jsonl_(std::exchange(other.jsonl_, nullptr)) {}

MetricsWriter::~MetricsWriter() {
  if (csv_ != nullptr) std::fclose(csv_);
  if (jsonl_ != nullptr) std::fclose(jsonl_);
}

Status MetricsWriter::Write(std::FILE* file, const std::string& text) const {
  if (std::fwrite(text.data(), 1, text.size(), file) == text.size() && std::fflush(file) == 0) {
    return {};
  }
  return Error{errno == ENOSPC ? ErrorCode::kResourceExhausted : ErrorCode::kIo,
               StrCat(dir_, ": cannot append metrics: ", std::strerror(errno))};
}

Status MetricsWriter::Append(const StepMetrics& metrics) {
  CACHALOT_RETURN_IF_ERROR(Write(jsonl_, StepToJson(metrics) + "\n"));
  return Write(csv_, CsvLine(metrics));
}

Result<std::vector<StepMetrics>> ReadMetrics(const std::string& run_dir) {
  const std::string path = run_dir + kJsonName;
  CACHALOT_TRY(const std::vector<std::string> lines, CompleteLines(path));
  std::vector<StepMetrics> metrics;
  for (size_t i = 0; i < lines.size(); ++i) {
    CACHALOT_TRY(StepMetrics m, StepFromJson(lines[i], StrCat(path, ":", i + 1)));
    metrics.push_back(std::move(m));
  }
  return metrics;
}

}  // namespace cachalot::train
