// SPDX-License-Identifier: Apache-2.0
// Samples of one figure and what is reported of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::eval {

// Nearest rank, 0 <= q <= 1; 0 of no values.
double Quantile(std::vector<double> values, double q);

double Mean(const std::vector<double>& values);  // 0 of no values

// Interquartile range as a fraction of the median: the noise of a figure. 0 of fewer than 2 values.
double Spread(const std::vector<double>& values);

// "512", "32k", "1M" (powers of 1024), or a list of them by commas: ascending, without repeats.
// kInvalidArgument naming the part that is no positive number of at most 2^31.
Result<uint32_t> ParseTokens(std::string_view text);
Result<std::vector<uint32_t>> ParseTokenList(std::string_view text);

// The other way: 1048576 -> "1M", 2048 -> "2k", 1000 -> "1000".
std::string FormatTokens(uint32_t tokens);

}  // namespace cachalot::eval
