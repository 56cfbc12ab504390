// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/char_set.h"

#include <algorithm>

namespace cachalot::grammar {
namespace {

constexpr uint32_t kSurrogateLow = 0xD800;
constexpr uint32_t kSurrogateHigh = 0xDFFF;

}  // namespace

void CharSet::Add(uint32_t low, uint32_t high) {
  if (low < kSurrogateLow) AddRange(low, std::min(high, kSurrogateLow - 1));
  if (high > kSurrogateHigh) AddRange(std::max(low, kSurrogateHigh + 1), std::min(high, kMaxChar));
}

void CharSet::Add(const CharSet& other) {
  for (const CharRange& range : other.ranges_) AddRange(range.low, range.high);
}

void CharSet::AddRange(uint32_t low, uint32_t high) {
  if (low > high) return;
  const auto touches = [](const CharRange& range, uint32_t at) { return range.high + 1 < at; };
  const auto first = std::lower_bound(ranges_.begin(), ranges_.end(), low, touches);
  auto last = first;
  while (last != ranges_.end() && last->low <= high + 1) {
    low = std::min(low, last->low);
    high = std::max(high, last->high);
    ++last;
  }
  ranges_.insert(ranges_.erase(first, last), {low, high});
}

CharSet CharSet::Complement() const {
  CharSet out;
  uint32_t next = 0;
  for (const CharRange& range : ranges_) {
    if (range.low > next) out.Add(next, range.low - 1);
    next = range.high + 1;
  }
  if (next <= kMaxChar) out.Add(next, kMaxChar);
  return out;
}

}  // namespace cachalot::grammar
