// SPDX-License-Identifier: Apache-2.0
#include "cachalot/io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/io/atomic_file.h"

namespace cachalot::io {
namespace {

Error SystemError(const std::string& path, std::string_view action) {
  const int code = errno;
  return {code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
          StrCat(path, ": cannot ", action, ": ", std::strerror(code))};
}

// Closes on scope exit unless released.
struct FileDescriptor {
  explicit FileDescriptor(int f) : fd(f) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd >= 0) close(fd);
  }
  int Release() { return std::exchange(fd, -1); }
  int fd;
};

Result<uint64_t> RegularFileSize(int fd, const std::string& path) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return SystemError(path, "stat");
  if (!S_ISREG(info.st_mode)) return Error{ErrorCode::kIo, StrCat(path, ": not a regular file")};
  return static_cast<uint64_t>(info.st_size);
}

}  // namespace

Result<MappedFile> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: a FIFO with nobody at the other end is refused below instead of waited for.
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd < 0) return SystemError(path, "open");
  CACHALOT_TRY(const uint64_t size, RegularFileSize(file.fd, path));
  MappedFile mapped;
  mapped.path_ = path;
  mapped.size_ = size;
  if (size > 0) {
    void* data = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
    if (data == MAP_FAILED) return SystemError(path, "map");
    mapped.data_ = static_cast<const uint8_t*>(data);
  }
  mapped.fd_ = file.Release();
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      fd_(std::exchange(other.fd_, -1)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(fd_, other.fd_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
  if (fd_ >= 0) close(fd_);
}

Status MappedFile::CheckUnchanged() const {
  CACHALOT_TRY(const uint64_t size, RegularFileSize(fd_, path_));
  if (size < size_) {
    return Error{ErrorCode::kIo, StrCat(path_, ": shrank from ", size_, " to ", size,
                                        " bytes while it was in use; restore it and start again")};
  }
  return {};
}

Result<std::string> ReadFile(const std::string& path, uint64_t max_bytes) {
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd < 0) return SystemError(path, "open");
  std::string bytes;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t got = read(file.fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError(path, "read");
    if (got == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(got));
    if (bytes.size() > max_bytes) {
      return Error{ErrorCode::kResourceExhausted,
                   StrCat(path, ": larger than the ", max_bytes, " bytes allowed here")};
    }
  }
}

Status WriteFileAtomic(const std::string& path, std::string_view bytes) {
  CACHALOT_TRY(AtomicFile file, AtomicFile::Create(path));
  CACHALOT_RETURN_IF_ERROR(file.Write(bytes.data(), bytes.size()));
  return file.Commit();
}

}  // namespace cachalot::io
