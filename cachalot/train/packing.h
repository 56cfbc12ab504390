// SPDX-License-Identifier: Apache-2.0
// Samples into sequences of one length with little left over. [V4 4.1; Ding et al. 2024]
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace cachalot::train {

// Tokens [begin, begin + length) of a sample.
struct Piece {
  uint64_t sample = 0;
  uint64_t begin = 0;
  uint32_t length = 0;
};

// Row r holds pieces [first[r], first[r + 1]).
struct PackedRows {
  std::vector<Piece> pieces;
  std::vector<uint64_t> first;

  uint64_t num_rows() const { return first.empty() ? 0 : first.size() - 1; }
  std::span<const Piece> row(uint64_t r) const {
    return std::span<const Piece>(pieces).subspan(first[r], first[r + 1] - first[r]);
  }
};

// Best-fit decreasing: samples longer than `row_tokens` are cut into full rows and a rest; the
// rests and the shorter samples go, longest first, where the least room is left that is enough. No
// sample that fits a row is ever cut. A rest of a single token, which has no target, is dropped.
// Rows hold 2 to row_tokens tokens. A pure function of the lengths; O(n log row_tokens).
PackedRows PackBestFit(uint64_t num_samples, const std::function<uint64_t(uint64_t)>& length_of,
                       uint32_t row_tokens);

}  // namespace cachalot::train
