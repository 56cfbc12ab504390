// SPDX-License-Identifier: Apache-2.0
// Records on their way from disk, several reads at once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/diskcache/storage.h"
#include "cachalot/diskcache/store.h"

namespace cachalot::diskcache {

// Neighbors in a segment are read together; each record is verified before the sink sees it.
// Thread-safety: none.
class Reading {
 public:
  ~Reading();  // waits for reads in flight

  // Takes what has arrived and keeps the disk busy. True once every record was delivered. With
  // `wait`, returns only then. An error ends it: that record is of no use and was removed from the
  // store, look up again.
  Result<bool> Poll(bool wait);

 private:
  friend class Store;
  struct FreeMemory {
    void operator()(uint8_t* p) const;
  };
  // Records that one read brings.
  struct Group {
    size_t first = 0, count = 0;  // into order_
    uint64_t begin = 0, end = 0;  // bytes of the segment, before rounding
  };

  Reading(Store& store, std::vector<FoundRecord> records, std::vector<uint32_t> tokens,
          Store::Sink sink);
  Status Prepare();
  Status SubmitSome();
  Status Take(const ReadQueue::Done& done);
  Status Deliver(size_t index, std::span<const uint8_t> bytes);
  std::span<const uint32_t> IdsOf(const FoundRecord& record) const;
  std::span<uint8_t> Buffer(size_t i);

  Store& store_;
  std::vector<FoundRecord> records_;
  std::vector<uint32_t> tokens_;
  Store::Sink sink_;
  std::vector<size_t> order_;  // records by place on disk
  std::vector<Group> groups_;
  std::vector<std::shared_ptr<StorageFile>> files_;  // of groups: stay open while we read
  size_t buffer_bytes_ = 0;
  std::unique_ptr<uint8_t, FreeMemory> memory_;
  std::vector<size_t> free_buffers_;
  std::vector<size_t> group_of_buffer_;
  size_t next_group_ = 0, finished_groups_ = 0;
  std::unique_ptr<ReadQueue> queue_;  // last: ends before the buffers do
};

}  // namespace cachalot::diskcache
