// SPDX-License-Identifier: Apache-2.0
// A file that appears under its name whole or not at all, written piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cachalot/base/error.h"

namespace cachalot::io {

// Writes to a temporary name beside `path`. Without Commit the destructor removes it. Movable.
class AtomicFile {
 public:
  static Result<AtomicFile> Create(const std::string& path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  // kResourceExhausted when the disk is full, else kIo.
  Status Write(const void* data, size_t size);
  // Writes over what Write has written at `offset`: for a header that needs to know what follows.
  Status Rewrite(uint64_t offset, const void* data, size_t size);
  // fsync, rename to `path`, fsync of the folder. Nothing may be written afterwards.
  Status Commit();

 private:
  AtomicFile() = default;

  std::string path_, temporary_;
  int fd_ = -1;
};

}  // namespace cachalot::io
