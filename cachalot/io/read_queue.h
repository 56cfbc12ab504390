// SPDX-License-Identifier: Apache-2.0
// Reads in flight, past the page cache: io_uring over files opened with O_DIRECT.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "cachalot/base/error.h"

namespace cachalot::io {

// What O_DIRECT asks of addresses, offsets and lengths on every disk with 4 KiB sectors.
inline constexpr uint64_t kDirectAlignment = 4096;

constexpr uint64_t DirectDown(uint64_t offset) {
  return offset / kDirectAlignment * kDirectAlignment;
}
constexpr uint64_t DirectUp(uint64_t offset) { return DirectDown(offset + kDirectAlignment - 1); }

// A file to read directly. Where the file system has no O_DIRECT (tmpfs), an ordinary one. Movable.
class DirectFile {
 public:
  // kNotFound, or kIo with the path and the system's reason.
  static Result<DirectFile> Open(const std::string& path);
  DirectFile(DirectFile&& other) noexcept;
  DirectFile& operator=(DirectFile&& other) noexcept;
  ~DirectFile();

  int fd() const { return fd_; }
  uint64_t size() const { return size_; }  // when it was opened
  const std::string& path() const { return path_; }

 private:
  DirectFile() = default;
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

// One thread owns a queue. Tests put another behind the interface, with reads that fail.
class ReadQueue {
 public:
  struct Done {
    uint64_t tag = 0;
    int64_t bytes = 0;  // read, fewer at the end of the file; negative: -errno
  };

  virtual ~ReadQueue() = default;  // waits for what is in flight
  // Offset, address and size are multiples of kDirectAlignment; the buffer stays until it is done.
  // At most the queue's depth may be in flight.
  virtual Status Submit(int fd, uint64_t offset, std::span<uint8_t> buffer, uint64_t tag) = 0;
  // A finished read. With `wait`, blocks until there is one (something must be in flight); without,
  // nothing may be ready: tag kNothing.
  virtual Result<Done> Next(bool wait) = 0;

  static constexpr uint64_t kNothing = UINT64_MAX;
};

// On io_uring; where that is forbidden (containers, old kernels), one pread after the other.
std::unique_ptr<ReadQueue> NewReadQueue(uint32_t depth);

}  // namespace cachalot::io
