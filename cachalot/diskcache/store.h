// SPDX-License-Identifier: Apache-2.0
// Records of KV state on disk: written behind by one thread, found by the tokens they stand for,
// read past the page cache. Knows bytes and token ids only. [docs/design/disk-cache.md]
//
// A store is a cache: whatever goes wrong with its files, the worst that happens is that something
// is not found. What Flush() has acknowledged survives a kill and a power cut.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_set>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/diskcache/catalog.h"
#include "cachalot/diskcache/record.h"
#include "cachalot/diskcache/storage.h"

namespace cachalot::diskcache {

struct StoreOptions {
  uint64_t max_bytes = uint64_t{64} << 30;         // of records; the least recently used go
  uint64_t segment_bytes = uint64_t{256} << 20;    // a file grows to about this
  uint64_t queue_bytes = uint64_t{256} << 20;      // waiting to be written; more is dropped
  bool read_only = false;                          // no writer, nothing changes; needs no lock
  std::function<void(std::string_view line)> log;  // key=value lines; may be empty
};

struct StoreStats {
  uint64_t bytes = 0, max_bytes = 0;  // of records
  uint64_t blocks = 0, states = 0;
  uint64_t queued_bytes = 0;
  uint64_t read_bytes = 0;     // from disk, rounding included
  uint64_t written_bytes = 0;  // of records
  uint64_t dropped = 0;        // records offered and not stored: queue full, disk full, errors
  uint64_t evicted = 0;
  uint64_t corrupt = 0;  // records that did not verify or could not be read
};

// Where a record is.
using FoundRecord = IndexRow;

// What is stored of a prompt.
struct StoredPath {
  std::vector<FoundRecord> blocks;   // the first blocks.size() * 128 tokens
  std::optional<FoundRecord> state;  // the furthest on that path
};

class Reading;

// Thread-safe, but a Reading is of one thread.
class Store {
 public:
  // Opens or creates. kVersionMismatch if a later version made it; an index that cannot be read is
  // set aside and the store begins empty. Takes a moment per 100,000 records.
  static Result<std::unique_ptr<Store>> Open(std::unique_ptr<Storage> storage,
                                             StoreOptions options);
  ~Store();  // writes what is queued

  // The key under which prefixes of this identity and scope begin.
  Key Root(std::string_view identity, uint64_t scope);

  // Blocks and the furthest state of at most `tokens`. Cost: a hash per 128 tokens.
  StoredPath Find(const Key& root, std::span<const uint32_t> tokens) const;
  bool Contains(const Key& key) const;

  // Queues a record. `name.parent` is the key of a root, or of a block that is stored or queued.
  // False if it is not taken: no room in the queue, writing paused after an error, or the parent
  // unknown. True also if it is there already.
  bool Put(const RecordName& name, std::vector<uint8_t> payload);
  // Waits until what was queued before is on disk: acknowledged. kIo or kResourceExhausted with the
  // reason if some of it could not be stored; what the budget has no room for is no error.
  Status Flush();

  // Called once per record, in any order; false if the payload is of no use (another size).
  using Sink = std::function<bool(size_t index, std::span<const uint8_t> payload)>;
  // Starts reading `records`, which are of `tokens`. Notes their use. The store outlives it.
  Result<std::unique_ptr<Reading>> Read(std::vector<FoundRecord> records,
                                        std::vector<uint32_t> tokens, Sink sink);

  // One record's bytes as they are on disk, unverified. kIo, kNotFound.
  Result<std::vector<uint8_t>> ReadBytes(const IndexRow& row);
  // Removes the record and all that stands on it.
  void Forget(const Key& key);
  // Removes every prefix of a root.
  void Purge(const Key& root);
  // A pinned record and what it stands on stay. kNotFound.
  Status SetPinned(const Key& key, bool pinned);
  StoreStats stats() const;
  std::vector<IndexRoot> Roots() const;
  Result<WriteTotals> Totals() const;  // since the store was made, as of the last commit
  std::vector<IndexRow> Rows() const;  // a copy of all, in no order

 private:
  friend class Reading;
  struct Segment {
    std::shared_ptr<StorageFile> file;
    uint64_t live_bytes = 0;
  };
  struct Item {
    RecordKind kind;
    Key key, parent;
    int64_t root;
    uint32_t position;
    std::vector<uint32_t> ids;
    std::vector<uint8_t> payload;
  };

  Store() = default;
  Status Load();
  Status OpenSegments(std::vector<IndexRow>& rows);
  static void MarkOverlaps(std::vector<IndexRow>& rows);
  void Run();
  struct Batch;
  Batch TakeBatch(std::unique_lock<std::mutex>& lock);
  Status WriteBatch(Batch& batch);
  Status MakeRoom(Batch& batch);
  Status Append(Batch& batch);
  Status CommitBatch(Batch& batch);
  Status NewSegment();
  void Publish(Batch& batch);
  void Reclaim(const std::vector<IndexRow>& removed);
  int64_t RootOf(const Key& parent) const;
  std::shared_ptr<StorageFile> FileOf(uint32_t segment) const;
  void Failed(const Key& key, const Error& error);
  void Log(std::string_view line) const;

  std::unique_ptr<Storage> storage_;
  StoreOptions options_;

  mutable std::mutex mutex_;  // guards what follows, up to the index
  std::condition_variable wake_, done_;
  Catalog catalog_;
  std::map<uint32_t, Segment> segments_;
  std::deque<Item> queue_;
  std::unordered_map<Key, int64_t, KeyHash> pending_;  // queued or being written -> its root
  std::vector<IndexRow> removed_;  // gone from the catalog, not yet from the index
  std::unordered_set<Key, KeyHash> touched_;
  std::vector<IndexRoot> new_roots_;
  StoreStats stats_;
  uint64_t accepted_ = 0, finished_ = 0;  // records; Flush waits for one to reach the other
  std::optional<Error> write_error_;      // since the last Flush
  int64_t paused_until_ms_ = 0;
  uint32_t flushing_ = 0;  // threads in Flush
  bool writing_ = false;
  bool stopping_ = false;

  // The writer's thread only, but for index_, which index_mutex_ guards.
  mutable std::mutex index_mutex_;
  std::unique_ptr<Index> index_;
  std::shared_ptr<StorageFile> open_file_;
  uint32_t open_segment_ = 0;
  uint64_t open_offset_ = 0;
  std::thread writer_;
};

}  // namespace cachalot::diskcache
