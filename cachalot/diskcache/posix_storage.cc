// SPDX-License-Identifier: Apache-2.0
// A directory: buffered writes, synced and then dropped from the page cache, where the weights
// live; reads past it, with io_uring.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "cachalot/base/strings.h"
#include "cachalot/diskcache/storage.h"
#include "cachalot/io/read_queue.h"

namespace cachalot::diskcache {
namespace {

Error SystemError(const std::string& path, std::string_view action, int code = errno) {
  const ErrorCode kind = code == ENOSPC || code == EDQUOT ? ErrorCode::kResourceExhausted
                         : code == ENOENT                 ? ErrorCode::kNotFound
                                                          : ErrorCode::kIo;
  return {kind, StrCat(path, ": cannot ", action, ": ", std::strerror(code))};
}

class PosixFile final : public StorageFile {
 public:
  // Two descriptors: what O_DIRECT asks of writes (whole sectors) would force padding.
  PosixFile(std::string path, int write_fd, int read_fd)
      : path_(std::move(path)), write_fd_(write_fd), read_fd_(read_fd) {}
  ~PosixFile() override {
    close(write_fd_);
    close(read_fd_);
  }

  Status Write(uint64_t offset, std::span<const uint8_t> bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = pwrite(write_fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return SystemError(path_, "write");
      offset += static_cast<uint64_t>(n);
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return {};
  }

  Status Sync() override {
    if (fdatasync(write_fd_) != 0) return SystemError(path_, "sync");
    posix_fadvise(write_fd_, 0, 0, POSIX_FADV_DONTNEED);  // a hint: the result says nothing
    return {};
  }

  Status Truncate(uint64_t size) override {
    if (ftruncate(write_fd_, static_cast<off_t>(size)) != 0) return SystemError(path_, "truncate");
    return {};
  }

  void Punch(uint64_t offset, uint64_t bytes) override {
    const uint64_t begin = (offset + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
    const uint64_t end = (offset + bytes) / kDirectAlignment * kDirectAlignment;
    if (end <= begin) return;
    // A file system without holes keeps the space until the segment is removed.
    const int unused = fallocate(write_fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                 static_cast<off_t>(begin), static_cast<off_t>(end - begin));
    static_cast<void>(unused);
  }

  Result<uint64_t> Size() override {
    struct stat info {};
    if (fstat(write_fd_, &info) != 0) return SystemError(path_, "look at it");
    return static_cast<uint64_t>(info.st_size);
  }

  int read_fd() const { return read_fd_; }

 private:
  std::string path_;
  int write_fd_, read_fd_;
};

class DirectQueue final : public ReadQueue {
 public:
  explicit DirectQueue(uint32_t depth) : queue_(io::NewReadQueue(depth)) {}
  Status Submit(StorageFile& file, uint64_t offset, std::span<uint8_t> buffer,
                uint64_t tag) override {
    return queue_->Submit(static_cast<PosixFile&>(file).read_fd(), offset, buffer, tag);
  }
  Result<Done> Next(bool wait) override { return queue_->Next(wait); }

 private:
  std::unique_ptr<io::ReadQueue> queue_;
};

class Directory final : public Storage {
 public:
  Directory(std::string dir, int fd, int lock_fd)
      : dir_(std::move(dir)), fd_(fd), lock_fd_(lock_fd) {}
  ~Directory() override {
    close(fd_);
    if (lock_fd_ >= 0) close(lock_fd_);
  }

  Result<std::unique_ptr<StorageFile>> Create(const std::string& name) override {
    return OpenFile(name, O_CREAT | O_EXCL);
  }
  Result<std::unique_ptr<StorageFile>> Open(const std::string& name) override {
    return OpenFile(name, 0);
  }
  Status SyncDirectory() override {
    if (fsync(fd_) != 0) return SystemError(dir_, "sync");
    return {};
  }
  Status Remove(const std::string& name) override {
    if (unlink(PathOf(name).c_str()) != 0) return SystemError(PathOf(name), "remove");
    return {};
  }
  Status Rename(const std::string& from, const std::string& to) override {
    if (rename(PathOf(from).c_str(), PathOf(to).c_str()) != 0) {
      return SystemError(PathOf(from), "rename");
    }
    return {};
  }
  Result<std::vector<std::string>> List() override {
    std::error_code error;
    std::vector<std::string> names;
    for (auto it = std::filesystem::directory_iterator(dir_, error);
         !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
      names.push_back(it->path().filename().string());
    }
    if (error) return Error{ErrorCode::kIo, StrCat(dir_, ": ", error.message())};
    return names;
  }
  Result<std::unique_ptr<ReadQueue>> NewReadQueue(uint32_t depth) override {
    return std::unique_ptr<ReadQueue>(std::make_unique<DirectQueue>(depth));
  }
  std::string PathOf(const std::string& name) const override { return dir_ + "/" + name; }
  const char* sqlite_vfs() const override { return nullptr; }

 private:
  Result<std::unique_ptr<StorageFile>> OpenFile(const std::string& name, int flags) {
    const std::string path = PathOf(name);
    const int write_fd = open(path.c_str(), O_RDWR | O_CLOEXEC | flags, 0600);
    if (write_fd < 0) return SystemError(path, "open");
    int read_fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (read_fd < 0) read_fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);  // tmpfs has no O_DIRECT
    if (read_fd < 0) {
      const Error error = SystemError(path, "open");
      close(write_fd);
      return error;
    }
    return std::unique_ptr<StorageFile>(new PosixFile(path, write_fd, read_fd));
  }

  std::string dir_;
  int fd_, lock_fd_;
};

// The number that the holder wrote into the lock file; for the message only.
std::string HolderOf(int fd) {
  char text[32] = {};
  const ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
  return n > 0 ? std::string(text, strcspn(text, "\n")) : "unknown";
}

Result<int> Lock(const std::string& dir) {
  const std::string path = dir + "/lock";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return SystemError(path, "open");
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const Error error =
        errno == EWOULDBLOCK
            ? Error{ErrorCode::kUnavailable, StrCat(dir, ": in use by process ", HolderOf(fd),
                                                    "; stop it or give another directory")}
            : SystemError(path, "lock");
    close(fd);
    return error;
  }
  const std::string pid = StrCat(getpid(), "\n");
  if (ftruncate(fd, 0) != 0 || pwrite(fd, pid.data(), pid.size(), 0) < 0) {
    const Error error = SystemError(path, "write");
    close(fd);
    return error;
  }
  return fd;
}

}  // namespace

Result<std::unique_ptr<Storage>> OpenDirectory(const std::string& dir, bool lock) {
  // Prompts are in here: for nobody else to read.
  if (mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) return SystemError(dir, "create");
  const int fd = open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return SystemError(dir, "open");
  int lock_fd = -1;
  if (lock) {
    auto locked = Lock(dir);
    if (!locked.ok()) {
      close(fd);
      return locked.error();
    }
    lock_fd = *locked;
  }
  return std::unique_ptr<Storage>(new Directory(dir, fd, lock_fd));
}

}  // namespace cachalot::diskcache
