// SPDX-License-Identifier: Apache-2.0
// Read-only memory maps and small-file helpers.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::io {

inline constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;

// How the bytes of a file come into memory.
enum class FileMemory : uint8_t {
  kMapped,     // pages of the page cache, shared, read when first touched
  kHugePages,  // copied into anonymous memory of 2 MiB pages: fewer TLB misses, never dropped
};

// Bytes done since the last call; false stops (kCancelled).
using ByteProgress = std::function<bool(uint64_t bytes)>;

// Part of a copy: memory lies in the node of the thread that first touches it, so each part is read
// by a thread of its own that begins with `enter` (to go to that node).
struct CopyPart {
  struct Range {
    uint64_t begin = 0, end = 0;  // bytes of the file; within its size
  };
  std::function<void()> enter;
  std::vector<Range> ranges;
};

// A whole file, read-only. Movable; unmapped on destruction.
class MappedFile {
 public:
  // kNotFound, or kIo with the path and the system's reason (permission, directory, ...);
  // kResourceExhausted where a copy finds no memory. Only a copy takes long and reports progress.
  static Result<MappedFile> Open(const std::string& path, FileMemory memory = FileMemory::kMapped,
                                 const ByteProgress& progress = {});
  // A copy in huge pages that begins at the edge of one, read by one thread a part at once; what is
  // in no part is zero. Without parts the calling thread reads all of it. Progress is reported by
  // one thread at a time.
  static Result<MappedFile> OpenCopy(const std::string& path, std::span<const CopyPart> parts,
                                     const ByteProgress& progress = {});
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  // When its bytes last changed before they were opened, nanoseconds since 1970.
  int64_t modified_ns() const { return modified_ns_; }
  // kIo if the file is now shorter than the map: touching the lost pages would raise SIGBUS. A copy
  // does not care.
  Status CheckUnchanged() const;
  // Reads every page that is not in memory yet and maps it, so that nothing waits for it later.
  // The system may drop pages of a mapped file again unless they are locked.
  Status Preload(const ByteProgress& progress) const;
  // Gives the pages of a map back, to the page cache and by it: they are read again when touched
  // again. Only a wish; a copy keeps its own.
  void DropPages() const;
  // Keeps the pages in memory until destruction. kResourceExhausted with the limit (RLIMIT_MEMLOCK)
  // where the system refuses.
  Status Lock() const;

 private:
  MappedFile() = default;
  Status OpenFile(const std::string& path);
  Status Map();
  Status AllocateCopy();
  Status ReadRange(CopyPart::Range range, const ByteProgress& progress) const;
  Status ReadParts(std::span<const CopyPart> parts, const ByteProgress& progress) const;
  Status ProtectCopy() const;

  std::string path_;
  FileMemory memory_ = FileMemory::kMapped;
  const uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
  int64_t modified_ns_ = 0;
  uint64_t mapped_bytes_ = 0;  // of address space, >= size_
  int fd_ = -1;
};

// Reads all of a file of at most `max_bytes`; kResourceExhausted if larger.
Result<std::string> ReadFile(const std::string& path, uint64_t max_bytes);

// Publishes `bytes` at `path` atomically: temporary name, fsync, rename, fsync of the folder.
Status WriteFileAtomic(const std::string& path, std::string_view bytes);

}  // namespace cachalot::io
