// SPDX-License-Identifier: Apache-2.0
// The thread that writes: bytes, sync, then the commit that names them; for removals the commit
// first, then the hole. [docs/design/disk-cache.md, Crash safety]
#include <sys/resource.h>

#include <algorithm>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/diskcache/store.h"
#include "cachalot/diskcache/store_internal.h"

namespace cachalot::diskcache {
namespace {

// Large enough that a sync and a commit are few, small enough to be acknowledged soon.
constexpr uint64_t kBatchBytes = uint64_t{16} << 20;
// Records come one by one while prompts are read; waiting a little makes one sync and commit of
// many.
constexpr auto kGather = std::chrono::milliseconds(100);
// The engine's threads fill the machine and meet at a barrier many times a step: a thread that
// takes one of their cores for a time slice stops them all.
constexpr int kNice = 10;
// Uses alone are written this seldom, and at the end: losing some costs a worse eviction.
constexpr auto kTouchInterval = std::chrono::seconds(30);
// After an error nothing is tried for so long: a full disk does not empty itself in between.
constexpr int64_t kPauseMs = 10'000;

}  // namespace

struct Store::Batch {
  std::vector<Item> items;
  std::vector<IndexRow> rows;  // of items, as they will be stored
  std::vector<IndexRow> removed;
  std::vector<IndexRow> touched;
  std::vector<IndexRoot> roots;
  size_t taken = 0;  // items, also those dropped on the way
  WriteTotals written;

  bool empty() const { return taken == 0 && removed.empty() && touched.empty() && roots.empty(); }
};

void Store::Run() {
  setpriority(PRIO_PROCESS, /*this thread*/ 0, kNice);
  std::unique_lock lock(mutex_);
  auto next_touch = std::chrono::steady_clock::now() + kTouchInterval;
  for (;;) {
    const auto work = [this] {
      return stopping_ || !queue_.empty() || !removed_.empty() ||
             (flushing_ > 0 && (!touched_.empty() || !new_roots_.empty()));
    };
    const bool woken = wake_.wait_until(lock, next_touch, work);
    if (!woken || flushing_ > 0 || stopping_)
      next_touch = std::chrono::steady_clock::now() + kTouchInterval;
    wake_.wait_for(lock, woken ? kGather : kGather.zero(), [this] {
      return stopping_ || flushing_ > 0 || stats_.queued_bytes >= kBatchBytes;
    });
    Batch batch = TakeBatch(lock);
    if (batch.empty()) {
      done_.notify_all();
      if (stopping_) return;
      continue;
    }
    writing_ = true;
    lock.unlock();
    const Status status = WriteBatch(batch);
    lock.lock();
    writing_ = false;
    if (status.ok()) {
      Publish(batch);
    } else {
      if (!batch.items.empty()) write_error_ = status.error();
      stats_.dropped += batch.items.size();
      // Gone from memory all the same; the rows go with a later commit, if there is one.
      if (!stopping_) removed_.insert(removed_.end(), batch.removed.begin(), batch.removed.end());
      new_roots_.insert(new_roots_.end(), batch.roots.begin(), batch.roots.end());
      paused_until_ms_ = UnixMs() + kPauseMs;
      Log(StrCat("event=kv_disk_write_failed records=", batch.items.size(), " reason=\"",
                 status.error().message, "\" paused_ms=", kPauseMs));
      // A failing disk must not keep Flush or the destructor for ever.
      if (flushing_ > 0 || stopping_) {
        removed_.clear();
        new_roots_.clear();
        touched_.clear();
      }
    }
    for (const Item& item : batch.items) pending_.erase(item.key);
    finished_ += batch.taken;
    done_.notify_all();
    if (status.ok()) {
      lock.unlock();
      Reclaim(batch.removed);
      lock.lock();
    } else if (!stopping_) {
      wake_.wait_for(lock, std::chrono::milliseconds(kPauseMs),
                     [this] { return stopping_ || flushing_ > 0; });
    }
  }
}

Store::Batch Store::TakeBatch(std::unique_lock<std::mutex>&) {
  Batch batch;
  uint64_t bytes = 0;
  while (!queue_.empty() && bytes < kBatchBytes) {
    Item item = std::move(queue_.front());
    queue_.pop_front();
    const size_t size = RecordBytes(item.ids.size(), item.payload.size());
    stats_.queued_bytes -= size;
    bytes += size;
    batch.items.push_back(std::move(item));
  }
  batch.taken = batch.items.size();
  batch.removed = std::exchange(removed_, {});
  batch.roots = std::exchange(new_roots_, {});
  for (const Key& key : touched_) {
    if (const Catalog::Entry* entry = catalog_.Find(key)) batch.touched.push_back(entry->row);
  }
  touched_.clear();
  return batch;
}

Status Store::WriteBatch(Batch& batch) {
  CACHALOT_RETURN_IF_ERROR(MakeRoom(batch));
  if (const Status status = Append(batch); !status.ok()) {
    open_file_ = nullptr;  // what a failed sync leaves behind nobody knows: go on in a new file
    return status;
  }
  const Status committed = CommitBatch(batch);
  if (!committed.ok()) open_file_ = nullptr;
  return committed;
}

// Evicts what the batch needs. Items for which there is no room, or whose parent is gone, are
// dropped.
Status Store::MakeRoom(Batch& batch) {
  const std::lock_guard lock(mutex_);
  uint64_t needed = 0;
  for (const Item& item : batch.items) needed += RecordBytes(item.ids.size(), item.payload.size());
  while (catalog_.bytes() + needed > options_.max_bytes) {
    auto evicted = catalog_.EvictOldest();
    if (!evicted) break;
    batch.removed.push_back(*evicted);
    ++stats_.evicted;
  }
  uint64_t room = options_.max_bytes - std::min(options_.max_bytes, catalog_.bytes());
  std::unordered_set<Key, KeyHash> added;
  std::erase_if(batch.items, [&](const Item& item) {
    const uint64_t bytes = RecordBytes(item.ids.size(), item.payload.size());
    const bool stands = added.contains(item.parent) || catalog_.Find(item.parent) != nullptr ||
                        catalog_.FindRoot(item.parent) != nullptr;
    if (!stands || bytes > room) {
      pending_.erase(item.key);
      ++stats_.dropped;
      return true;
    }
    room -= bytes;
    added.insert(item.key);
    return false;
  });
  return {};
}

Status Store::NewSegment() {
  // A name that exists belongs to a segment of which something was written and never committed.
  for (int attempt = 0; attempt < 1000; ++attempt) {
    auto file = storage_->Create(SegmentName(++open_segment_));
    if (!file.ok() && file.error().code == ErrorCode::kIo && attempt < 999) continue;
    if (!file.ok()) return file.error();
    CACHALOT_RETURN_IF_ERROR(storage_->SyncDirectory());
    open_file_ = std::move(*file);
    open_offset_ = 0;
    const std::lock_guard lock(mutex_);
    segments_[open_segment_] = {.file = open_file_, .live_bytes = 0};
    return {};
  }
  return {};
}

Status Store::Append(Batch& batch) {
  if (batch.items.empty()) return {};
  if (open_file_ == nullptr || open_offset_ >= options_.segment_bytes) {
    CACHALOT_RETURN_IF_ERROR(NewSegment());
  }
  std::vector<uint8_t> bytes;
  const int64_t now = UnixMs();
  const uint64_t begin = open_offset_;
  for (const Item& item : batch.items) {
    const RecordName name{
        .kind = item.kind, .parent = item.parent, .position = item.position, .ids = item.ids};
    const uint64_t offset = begin + bytes.size();
    EncodeRecord(name, item.key, item.payload, bytes);
    batch.rows.push_back({.key = item.key,
                          .parent = item.parent,
                          .kind = item.kind,
                          .position = item.position,
                          .root = item.root,
                          .segment = open_segment_,
                          .offset = offset,
                          .bytes = static_cast<uint32_t>(begin + bytes.size() - offset),
                          .created_ms = now,
                          .used_ms = now});
  }
  CACHALOT_RETURN_IF_ERROR(open_file_->Write(begin, bytes));
  CACHALOT_RETURN_IF_ERROR(open_file_->Sync());
  open_offset_ = begin + bytes.size();
  const uint64_t first_page = begin / kDirectAlignment;
  const uint64_t end_page = (open_offset_ + kDirectAlignment - 1) / kDirectAlignment;
  batch.written = {.record_bytes = bytes.size(),
                   .device_bytes = (end_page - first_page) * kDirectAlignment};
  return {};
}

Status Store::CommitBatch(Batch& batch) {
  const std::lock_guard lock(index_mutex_);
  CACHALOT_RETURN_IF_ERROR(index_->Begin());
  const auto change = [&]() -> Status {
    for (const IndexRoot& root : batch.roots) CACHALOT_RETURN_IF_ERROR(index_->InsertRoot(root));
    for (const IndexRow& row : batch.removed) CACHALOT_RETURN_IF_ERROR(index_->Delete(row.key));
    for (const IndexRow& row : batch.touched) {
      CACHALOT_RETURN_IF_ERROR(index_->Touch(row.key, row.used_ms, row.hits));
    }
    for (const IndexRow& row : batch.rows) CACHALOT_RETURN_IF_ERROR(index_->Insert(row));
    batch.written.device_bytes += index_->TakeWrittenBytes();  // of the commits before this one
    return index_->AddTotals(batch.written);
  };
  if (const Status status = change(); !status.ok()) {
    index_->Rollback();
    return status;
  }
  return index_->Commit();
}

// From here on they are found. Pre: the lock is held.
void Store::Publish(Batch& batch) {
  for (const IndexRow& row : batch.rows) {
    stats_.written_bytes += row.bytes;
    // Its parent may have been removed while it was being written.
    if (catalog_.Add(row)) {
      segments_[row.segment].live_bytes += row.bytes;
    } else {
      removed_.push_back(row);
      segments_[row.segment].live_bytes += row.bytes;
    }
  }
}

// After the commit that removed them. A reader that still looks there finds no valid record.
void Store::Reclaim(const std::vector<IndexRow>& removed) {
  for (const IndexRow& row : removed) {
    std::shared_ptr<StorageFile> file;
    bool empty = false;
    {
      const std::lock_guard lock(mutex_);
      const auto found = segments_.find(row.segment);
      if (found == segments_.end()) continue;
      Segment& segment = found->second;
      segment.live_bytes -= std::min<uint64_t>(segment.live_bytes, row.bytes);
      file = segment.file;
      empty = segment.live_bytes == 0 && row.segment != open_segment_;
      if (empty) segments_.erase(found);
    }
    if (empty) {
      storage_->Remove(SegmentName(row.segment)).IgnoreError("tried again at the next start");
    } else if (file != nullptr && row.punch) {
      file->Punch(row.offset, row.bytes);
    }
  }
}

}  // namespace cachalot::diskcache
