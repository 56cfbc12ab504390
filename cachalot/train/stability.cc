// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/stability.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace cachalot::train {
namespace {

constexpr uint64_t kHorizon = 32;
constexpr double kLeastDeviation = 0.01;  // of the mean

uint64_t NumberOr0(const std::map<std::string, uint64_t>& numbers, const char* name) {
  const auto found = numbers.find(name);
  return found == numbers.end() ? 0 : found->second;
}

}  // namespace

bool SpikeDetector::Take(double loss, double deviations) {
  if (deviations > 0 && count_ >= kHorizon) {
    const double deviation = std::max(std::sqrt(variance_), kLeastDeviation * mean_);
    if (loss > mean_ + deviations * deviation) return true;
  }
  ++count_;
  const double weight = 1.0 / static_cast<double>(std::min(count_, kHorizon));
  const double distance = loss - mean_;
  mean_ += weight * distance;
  variance_ = (1 - weight) * (variance_ + weight * distance * distance);
  return false;
}

void SpikeDetector::Save(std::map<std::string, uint64_t>& numbers) const {
  numbers["spike.count"] = count_;
  numbers["spike.mean"] = std::bit_cast<uint64_t>(mean_);
  numbers["spike.variance"] = std::bit_cast<uint64_t>(variance_);
}

void SpikeDetector::Load(const std::map<std::string, uint64_t>& numbers) {
  count_ = NumberOr0(numbers, "spike.count");
  mean_ = std::bit_cast<double>(NumberOr0(numbers, "spike.mean"));
  variance_ = std::bit_cast<double>(NumberOr0(numbers, "spike.variance"));
}

}  // namespace cachalot::train
