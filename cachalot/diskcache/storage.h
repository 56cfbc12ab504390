// SPDX-License-Identifier: Apache-2.0
// The files under a store: a directory on a disk (posix_storage.cc) or, for tests, one in memory
// that loses and tears what was not synced (fault_storage.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/io/read_queue.h"

namespace cachalot::diskcache {

using io::kDirectAlignment;

// Thread-safety: one writer, and readers through read queues.
class StorageFile {
 public:
  virtual ~StorageFile() = default;
  // kResourceExhausted when the disk is full, else kIo; then any part may have been written.
  virtual Status Write(uint64_t offset, std::span<const uint8_t> bytes) = 0;
  // What was written before survives a power cut.
  virtual Status Sync() = 0;
  virtual Status Truncate(uint64_t size) = 0;
  // Gives the whole 4 KiB pages inside the range back; their bytes read as anything. Best effort.
  virtual void Punch(uint64_t offset, uint64_t bytes) = 0;
  virtual Result<uint64_t> Size() = 0;
};

// Reads in flight. One thread owns a queue. io::ReadQueue over files of a Storage.
class ReadQueue {
 public:
  using Done = io::ReadQueue::Done;

  virtual ~ReadQueue() = default;  // waits for what is in flight
  // Offset, address and size are multiples of kDirectAlignment; the buffer stays until it is done.
  // At most the queue's depth may be in flight.
  virtual Status Submit(StorageFile& file, uint64_t offset, std::span<uint8_t> buffer,
                        uint64_t tag) = 0;
  // A finished read. With `wait`, blocks until there is one (something must be in flight); without,
  // nothing may be ready: tag kNothing.
  virtual Result<Done> Next(bool wait) = 0;

  static constexpr uint64_t kNothing = io::ReadQueue::kNothing;
};

class Storage {
 public:
  virtual ~Storage() = default;
  // A new empty file; gone after a power cut until SyncDirectory.
  virtual Result<std::unique_ptr<StorageFile>> Create(const std::string& name) = 0;
  virtual Result<std::unique_ptr<StorageFile>> Open(const std::string& name) = 0;
  virtual Status SyncDirectory() = 0;
  virtual Status Remove(const std::string& name) = 0;
  virtual Status Rename(const std::string& from, const std::string& to) = 0;
  virtual Result<std::vector<std::string>> List() = 0;
  virtual Result<std::unique_ptr<ReadQueue>> NewReadQueue(uint32_t depth) = 0;
  // How SQLite reaches a file here.
  virtual std::string PathOf(const std::string& name) const = 0;
  virtual const char* sqlite_vfs() const = 0;  // null: the system's
};

// The directory `dir`, made if it is missing (its parent must be there). With `lock`, nobody else
// holds it: kUnavailable with the remedy if another process does. The lock ends with the process.
Result<std::unique_ptr<Storage>> OpenDirectory(const std::string& dir, bool lock);

}  // namespace cachalot::diskcache
