// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/bench_stats.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "cachalot/base/strings.h"

namespace cachalot::eval {

double Quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  const auto at = static_cast<size_t>(q * static_cast<double>(values.size() - 1) + 0.5);
  std::ranges::nth_element(values, values.begin() + static_cast<ptrdiff_t>(at));
  return values[at];
}

double Mean(const std::vector<double>& values) {
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return values.empty() ? 0.0 : sum / static_cast<double>(values.size());
}

double Spread(const std::vector<double>& values) {
  const double median = Quantile(values, 0.5);
  if (values.size() < 2 || median == 0) return 0;
  return (Quantile(values, 0.75) - Quantile(values, 0.25)) / median;
}

Result<uint32_t> ParseTokens(std::string_view text) {
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  std::string_view unit(parsed.ptr, static_cast<size_t>(end - parsed.ptr));
  constexpr uint64_t kMost = uint64_t{1} << 31;
  const bool is_number = parsed.ec == std::errc() && value >= 1 && value <= kMost;
  if (is_number && (unit == "k" || unit == "K")) {
    value <<= 10;
    unit = {};
  } else if (is_number && (unit == "m" || unit == "M")) {
    value <<= 20;
    unit = {};
  }
  if (!is_number || !unit.empty() || value > kMost) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("'", text, "': expected a number of tokens, as in 512, 32k or 1M")};
  }
  return static_cast<uint32_t>(value);
}

Result<std::vector<uint32_t>> ParseTokenList(std::string_view text) {
  std::vector<uint32_t> values;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    CACHALOT_TRY(const uint32_t value, ParseTokens(text.substr(begin, end - begin)));
    values.push_back(value);
    begin = end + 1;
  }
  std::ranges::sort(values);
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

std::string FormatTokens(uint32_t tokens) {
  if (tokens != 0 && tokens % (1u << 20) == 0) return StrCat(tokens >> 20, "M");
  if (tokens != 0 && tokens % (1u << 10) == 0) return StrCat(tokens >> 10, "k");
  return StrCat(tokens);
}

}  // namespace cachalot::eval
