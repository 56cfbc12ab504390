// SPDX-License-Identifier: Apache-2.0
// From places of tensors in files to reads that a disk likes: whole pages, neighbors together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace cachalot::stream {

// Bytes [begin, end) of file number `file`.
struct FileRange {
  uint32_t file = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// One contiguous read: from `begin`, a multiple of the page, to at least `end`, into the
// destination at `at`, a multiple of the page too.
struct Run {
  uint32_t file = 0;
  uint64_t begin = 0;
  uint64_t end = 0;  // exact: what follows on its page is read but not needed
  uint64_t at = 0;

  uint64_t bytes() const;  // of the destination: whole pages
};

struct ReadLayout {
  std::vector<Run> runs;         // ascending by file and begin
  std::vector<uint64_t> places;  // of each range in the destination
  uint64_t bytes = 0;            // of the destination
};

// Ranges whose pages touch or overlap become one run; no page between two runs is read. Ranges may
// come in any order and overlap.
ReadLayout PlanReads(std::span<const FileRange> ranges);

}  // namespace cachalot::stream
