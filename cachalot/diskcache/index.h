// SPDX-License-Identifier: Apache-2.0
// Which records there are, durably: a SQLite database beside the segments. The store keeps the same
// in memory and asks here only at its start.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/diskcache/record.h"
#include "cachalot/diskcache/storage.h"

struct sqlite3;
struct sqlite3_stmt;

namespace cachalot::diskcache {

struct IndexRow {
  Key key, parent;
  RecordKind kind = RecordKind::kBlock;
  uint32_t position = 0;
  int64_t root = 0;  // IndexRoot::id
  uint32_t segment = 0;
  uint64_t offset = 0;
  uint32_t bytes = 0;
  int64_t created_ms = 0, used_ms = 0;  // Unix time
  uint64_t hits = 0;
  bool pinned = false;
  // In memory only: nobody else claims its bytes, so removing it may give them back.
  bool punch = true;
};

// The prefixes of one model and scope.
struct IndexRoot {
  int64_t id = 0;
  Key key;
  std::string identity;
  uint64_t scope = 0;
};

// Since the store was made: what write amplification is made of.
struct WriteTotals {
  uint64_t record_bytes = 0;
  uint64_t device_bytes = 0;  // pages of segments and of the index, its log and its checkpoints
};

// Thread-safety: one thread at a time. Every change is inside Begin .. Commit.
class Index {
 public:
  // Creates the database if it is not there. kDataCorruption if the file is no such database,
  // kVersionMismatch if a later version made it; kIo, kResourceExhausted.
  static Result<std::unique_ptr<Index>> Open(Storage& storage, const std::string& name,
                                             bool read_only);
  ~Index();

  Result<std::vector<IndexRow>> LoadRows();
  Result<std::vector<IndexRoot>> LoadRoots();
  Result<WriteTotals> LoadTotals();  // zeros in an index of version 1

  Status Begin();
  // Once it has returned ok, the changes survive a power cut. An error leaves nothing changed.
  Status Commit();
  void Rollback();

  Status Insert(const IndexRow& row);
  Status InsertRoot(const IndexRoot& root);
  Status Delete(const Key& key);
  Status Touch(const Key& key, int64_t used_ms, uint64_t hits);
  Status SetPinned(const Key& key, bool pinned);
  Status AddTotals(const WriteTotals& more);

  // Bytes that the database wrote since the last call: each changed page once to the log and,
  // later, once to its place.
  uint64_t TakeWrittenBytes();

 private:
  Index() = default;
  Status Execute(const char* sql);
  Status Prepare(bool read_only);
  Status Finish(sqlite3_stmt* statement);  // steps once and resets
  Error SqlError(std::string_view action);

  std::string path_;
  sqlite3* db_ = nullptr;
  sqlite3_stmt* insert_ = nullptr;
  sqlite3_stmt* delete_ = nullptr;
  sqlite3_stmt* touch_ = nullptr;
  sqlite3_stmt* pin_ = nullptr;
  sqlite3_stmt* total_ = nullptr;
};

}  // namespace cachalot::diskcache
