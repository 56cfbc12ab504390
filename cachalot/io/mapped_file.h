// SPDX-License-Identifier: Apache-2.0
// Read-only memory maps and small-file helpers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cachalot/base/error.h"

namespace cachalot::io {

// A whole file, mapped read-only and shared. Movable; unmapped on destruction.
class MappedFile {
 public:
  // kNotFound, or kIo with the path and the system's reason (permission, directory, ...).
  static Result<MappedFile> Open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  // kIo if the file is now shorter than the map: touching the lost pages would raise SIGBUS.
  Status CheckUnchanged() const;

 private:
  MappedFile() = default;

  std::string path_;
  const uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
  int fd_ = -1;
};

// Reads all of a file of at most `max_bytes`; kResourceExhausted if larger.
Result<std::string> ReadFile(const std::string& path, uint64_t max_bytes);

// Publishes `bytes` at `path` atomically: temporary name, fsync, rename, fsync of the folder.
Status WriteFileAtomic(const std::string& path, std::string_view bytes);

}  // namespace cachalot::io
