// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/packing.h"

#include <numeric>
#include <set>

#include "cachalot/base/check.h"

namespace cachalot::train {

PackedRows PackBestFit(uint64_t num_samples, const std::function<uint64_t(uint64_t)>& length_of,
                       uint32_t row_tokens) {
  CACHALOT_CHECK(row_tokens >= 2);
  std::vector<Piece> pieces;
  std::vector<uint64_t> row_of;  // of each piece
  uint64_t rows = 0;
  std::vector<std::vector<Piece>> by_length(row_tokens);
  for (uint64_t s = 0; s < num_samples; ++s) {
    const uint64_t length = length_of(s);
    uint64_t at = 0;
    for (; length - at >= row_tokens; at += row_tokens) {
      pieces.push_back({s, at, row_tokens});
      row_of.push_back(rows++);
    }
    if (length - at >= 2)
      by_length[length - at].push_back({s, at, static_cast<uint32_t>(length - at)});
  }

  // Rows by the room they have left; rooms that some row has.
  std::vector<std::vector<uint64_t>> with_room(row_tokens);
  std::set<uint32_t> rooms;
  for (uint32_t length = row_tokens - 1; length >= 2; --length) {
    for (const Piece& piece : by_length[length]) {
      uint64_t row = rows;
      uint32_t room = row_tokens;
      const auto best = rooms.lower_bound(length);
      if (best == rooms.end()) {
        ++rows;
      } else {
        room = *best;
        row = with_room[room].back();
        with_room[room].pop_back();
        if (with_room[room].empty()) rooms.erase(best);
      }
      pieces.push_back(piece);
      row_of.push_back(row);
      const uint32_t left = room - length;
      if (left < 2) continue;
      if (with_room[left].empty()) rooms.insert(left);
      with_room[left].push_back(row);
    }
  }

  // Pieces in the order of their rows.
  PackedRows packed;
  packed.first.assign(rows + 1, 0);
  for (const uint64_t row : row_of) ++packed.first[row + 1];
  std::partial_sum(packed.first.begin(), packed.first.end(), packed.first.begin());
  std::vector<uint64_t> next(packed.first.begin(), packed.first.end() - 1);
  packed.pieces.resize(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i) packed.pieces[next[row_of[i]]++] = pieces[i];
  return packed;
}

}  // namespace cachalot::train
