// SPDX-License-Identifier: Apache-2.0
// Sets of characters (Unicode scalar values). Internal to the module.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

namespace cachalot::grammar {

struct CharRange {
  uint32_t low = 0, high = 0;  // inclusive
  auto operator<=>(const CharRange&) const = default;
};

// Ranges ascending, apart, never of surrogate halves: equal sets compare equal.
class CharSet {
 public:
  CharSet() = default;
  CharSet(uint32_t low, uint32_t high) { Add(low, high); }
  static CharSet All() { return {0, kMaxChar}; }

  void Add(uint32_t low, uint32_t high);
  void Add(const CharSet& other);
  CharSet Complement() const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<CharRange>& ranges() const { return ranges_; }
  auto operator<=>(const CharSet&) const = default;

  static constexpr uint32_t kMaxChar = 0x10FFFF;

 private:
  void AddRange(uint32_t low, uint32_t high);
  std::vector<CharRange> ranges_;
};

}  // namespace cachalot::grammar
