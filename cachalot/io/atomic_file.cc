// SPDX-License-Identifier: Apache-2.0
#include "cachalot/io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"

namespace cachalot::io {
namespace {

Error SystemError(const std::string& path, std::string_view action) {
  const int code = errno;
  const ErrorCode kind = code == ENOSPC || code == EDQUOT ? ErrorCode::kResourceExhausted
                         : code == ENOENT                 ? ErrorCode::kNotFound
                                                          : ErrorCode::kIo;
  return {kind, StrCat(path, ": cannot ", action, ": ", std::strerror(code))};
}

}  // namespace

Result<AtomicFile> AtomicFile::Create(const std::string& path) {
  AtomicFile file;
  file.path_ = path;
  file.temporary_ = StrCat(path, ".tmp.", getpid());
  file.fd_ = open(file.temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file.fd_ < 0) return SystemError(file.temporary_, "create");
  return file;
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)) {}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

Status AtomicFile::Write(const void* data, size_t size) {
  CACHALOT_CHECK(fd_ >= 0);
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = write(fd_, from, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return SystemError(temporary_, "write");
    from += written;
    size -= static_cast<size_t>(written);
  }
  return {};
}

Status AtomicFile::Rewrite(uint64_t offset, const void* data, size_t size) {
  CACHALOT_CHECK(fd_ >= 0);
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = pwrite(fd_, from, size, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return SystemError(temporary_, "write");
    from += written;
    offset += static_cast<uint64_t>(written);
    size -= static_cast<size_t>(written);
  }
  return {};
}

Status AtomicFile::Commit() {
  CACHALOT_CHECK(fd_ >= 0);
  if (fsync(fd_) != 0) return SystemError(temporary_, "sync");
  if (rename(temporary_.c_str(), path_.c_str()) != 0)
    return SystemError(path_, "rename into place");
  close(std::exchange(fd_, -1));
  const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  const int dir = open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool failed = dir >= 0 && fsync(dir) != 0;
  const Status status = failed ? Status(SystemError(folder.string(), "sync")) : Status();
  if (dir >= 0) close(dir);
  return status;
}

}  // namespace cachalot::io
