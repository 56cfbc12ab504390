// SPDX-License-Identifier: Apache-2.0
// For tests: a read queue that fails reads by a plan, and hands them back in another order.
#pragma once

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "cachalot/base/rng.h"
#include "cachalot/io/read_queue.h"

namespace cachalot::stream {

// What becomes of the n-th read (from 0): nothing, an error number, or only part of the bytes.
struct ReadFate {
  int error = 0;
  bool cut = false;
};
using FatePlan = std::function<ReadFate(uint64_t read, uint64_t offset)>;

class FaultyQueue final : public io::ReadQueue {
 public:
  FaultyQueue(uint32_t depth, FatePlan plan, uint64_t seed)
      : queue_(io::NewReadQueue(depth)), plan_(std::move(plan)), seed_(seed) {}

  Status Submit(int fd, uint64_t offset, std::span<uint8_t> buffer, uint64_t tag) override {
    const ReadFate fate = plan_(reads_++, offset);
    if (fate.error == 0 && !fate.cut) {
      ++in_flight_;
      return queue_->Submit(fd, offset, buffer, tag);
    }
    std::memset(buffer.data(), 0xA5, buffer.size());
    done_.push_back({.tag = tag, .bytes = fate.cut ? 8 : -int64_t{fate.error}});
    return {};
  }

  // Waits for all that is in flight and returns any of it.
  Result<Done> Next(bool /*wait*/) override {
    for (; in_flight_ > 0; --in_flight_) {
      CACHALOT_TRY(const Done done, queue_->Next(/*wait=*/true));
      done_.push_back(done);
    }
    if (done_.empty()) return Done{.tag = kNothing};
    const size_t i = CounterRandom(seed_, 7, picks_++) % done_.size();
    const Done done = done_[i];
    done_.erase(done_.begin() + static_cast<ptrdiff_t>(i));
    return done;
  }

 private:
  std::unique_ptr<io::ReadQueue> queue_;
  FatePlan plan_;
  uint64_t seed_;
  uint64_t reads_ = 0;
  uint64_t picks_ = 0;
  uint32_t in_flight_ = 0;
  std::vector<Done> done_;
};

}  // namespace cachalot::stream
