// SPDX-License-Identifier: Apache-2.0
#include "cachalot/stream/extents.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "cachalot/io/read_queue.h"

namespace cachalot::stream {

using io::DirectDown;
using io::DirectUp;

uint64_t Run::bytes() const { return DirectUp(end) - begin; }

ReadLayout PlanReads(std::span<const FileRange> ranges) {
  std::vector<size_t> order(ranges.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {},
                    [&](size_t i) { return std::tuple(ranges[i].file, ranges[i].begin, i); });
  ReadLayout layout;
  layout.places.resize(ranges.size());
  for (const size_t i : order) {
    const FileRange& range = ranges[i];
    Run* last = layout.runs.empty() ? nullptr : &layout.runs.back();
    if (last != nullptr && last->file == range.file && range.begin <= DirectUp(last->end)) {
      last->end = std::max(last->end, range.end);
    } else {
      const uint64_t at = last == nullptr ? 0 : last->at + last->bytes();
      layout.runs.push_back(
          {.file = range.file, .begin = DirectDown(range.begin), .end = range.end, .at = at});
      last = &layout.runs.back();
    }
    layout.places[i] = last->at + (range.begin - last->begin);
  }
  if (!layout.runs.empty()) layout.bytes = layout.runs.back().at + layout.runs.back().bytes();
  return layout;
}

}  // namespace cachalot::stream
