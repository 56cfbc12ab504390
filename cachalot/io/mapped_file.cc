// SPDX-License-Identifier: Apache-2.0
#include "cachalot/io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <thread>
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

Result<struct stat> RegularFileInfo(int fd, const std::string& path) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return SystemError(path, "stat");
  if (!S_ISREG(info.st_mode)) return Error{ErrorCode::kIo, StrCat(path, ": not a regular file")};
  return info;
}

Result<uint64_t> RegularFileSize(int fd, const std::string& path) {
  CACHALOT_TRY(const struct stat info, RegularFileInfo(fd, path));
  return static_cast<uint64_t>(info.st_size);
}

// Read, mapped and reported at once; a multiple of every page size.
constexpr uint64_t kSliceBytes = uint64_t{32} << 20;

Error Stopped() { return {ErrorCode::kCancelled, "stopped"}; }

void TouchPages(const uint8_t* data, uint64_t bytes) {
  constexpr uint64_t kSmallestPage = 4096;
  for (uint64_t i = 0; i < bytes; i += kSmallestPage) {
    static_cast<void>(*static_cast<const volatile uint8_t*>(data + i));
  }
}

}  // namespace

Result<MappedFile> MappedFile::Open(const std::string& path, FileMemory memory,
                                    const ByteProgress& progress) {
  if (memory == FileMemory::kHugePages) return OpenCopy(path, {}, progress);
  MappedFile file;
  CACHALOT_RETURN_IF_ERROR(file.OpenFile(path));
  if (file.size_ > 0) CACHALOT_RETURN_IF_ERROR(file.Map());
  return file;
}

Result<MappedFile> MappedFile::OpenCopy(const std::string& path, std::span<const CopyPart> parts,
                                        const ByteProgress& progress) {
  MappedFile file;
  file.memory_ = FileMemory::kHugePages;
  CACHALOT_RETURN_IF_ERROR(file.OpenFile(path));
  if (file.size_ == 0) return file;
  CACHALOT_RETURN_IF_ERROR(file.AllocateCopy());
  CACHALOT_RETURN_IF_ERROR(parts.empty() ? file.ReadRange({0, file.size_}, progress)
                                         : file.ReadParts(parts, progress));
  CACHALOT_RETURN_IF_ERROR(file.ProtectCopy());
  return file;
}

Status MappedFile::OpenFile(const std::string& path) {
  path_ = path;
  // O_NONBLOCK: a FIFO with nobody at the other end is refused below instead of waited for.
  fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) return SystemError(path, "open");
  CACHALOT_TRY(const struct stat info, RegularFileInfo(fd_, path));
  modified_ns_ = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
  size_ = static_cast<uint64_t>(info.st_size);
  return {};
}

Status MappedFile::Map() {
  void* data = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd_, 0);
  if (data == MAP_FAILED) return SystemError(path_, "map");
  data_ = static_cast<const uint8_t*>(data);
  mapped_bytes_ = size_;
  return {};
}

Status MappedFile::AllocateCopy() {
  // A huge page more than needed, so that the data can start at the edge of one.
  const uint64_t bytes = (size_ + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  void* base = mmap(nullptr, bytes + kHugePageBytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return Error{ErrorCode::kResourceExhausted,
                 StrCat(path_, ": no memory for a copy of ", size_,
                        " bytes: ", std::strerror(errno), "; leave out --huge-pages")};
  }
  auto* start = static_cast<uint8_t*>(base);
  const auto misaligned = reinterpret_cast<uintptr_t>(start) % kHugePageBytes;
  const uint64_t lead = misaligned == 0 ? 0 : kHugePageBytes - misaligned;
  if (lead > 0) munmap(start, lead);
  uint8_t* data = start + lead;
  if (lead < kHugePageBytes) munmap(data + bytes, kHugePageBytes - lead);
  data_ = data;
  mapped_bytes_ = bytes;
  // A wish: where the system has no huge pages, small ones serve.
  madvise(data, bytes, MADV_HUGEPAGE);
  posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
  return {};
}

Status MappedFile::ReadRange(CopyPart::Range range, const ByteProgress& progress) const {
  auto* data = const_cast<uint8_t*>(data_);
  for (uint64_t done = range.begin; done < range.end;) {
    const uint64_t wanted = std::min(kSliceBytes, range.end - done);
    const ssize_t got = pread(fd_, data + done, wanted, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError(path_, "read");
    if (got == 0) return Error{ErrorCode::kIo, StrCat(path_, ": became shorter while it was read")};
    // Bytes of the page cache that were copied are of no use twice: give them back.
    posix_fadvise(fd_, static_cast<off_t>(done), got, POSIX_FADV_DONTNEED);
    done += static_cast<uint64_t>(got);
    if (progress && !progress(static_cast<uint64_t>(got))) return Stopped();
  }
  return {};
}

Status MappedFile::ReadParts(std::span<const CopyPart> parts, const ByteProgress& progress) const {
  std::mutex mutex;  // of what follows
  Status status;     // the first that went wrong stops all
  const auto report = [&](uint64_t bytes) {
    const std::lock_guard lock(mutex);
    return status.ok() && (!progress || progress(bytes));
  };
  const auto read_part = [&](const CopyPart& part) {
    if (part.enter) part.enter();
    for (const CopyPart::Range range : part.ranges) {
      const Status read = ReadRange(range, report);
      if (read.ok()) continue;
      const std::lock_guard lock(mutex);
      if (status.ok()) status = read;
      return;
    }
  };
  {
    std::vector<std::jthread> threads;
    threads.reserve(parts.size());
    for (const CopyPart& part : parts) threads.emplace_back([&] { read_part(part); });
  }
  return status;
}

Status MappedFile::ProtectCopy() const {
  if (mprotect(const_cast<uint8_t*>(data_), mapped_bytes_, PROT_READ) != 0) {
    return SystemError(path_, "protect");
  }
  return {};
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      memory_(other.memory_),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      modified_ns_(other.modified_ns_),
      mapped_bytes_(std::exchange(other.mapped_bytes_, 0)),
      fd_(std::exchange(other.fd_, -1)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(memory_, other.memory_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(modified_ns_, other.modified_ns_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  std::swap(fd_, other.fd_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), mapped_bytes_);
  if (fd_ >= 0) close(fd_);
}

Status MappedFile::CheckUnchanged() const {
  if (memory_ != FileMemory::kMapped) return {};
  CACHALOT_TRY(const uint64_t size, RegularFileSize(fd_, path_));
  if (size < size_) {
    return Error{ErrorCode::kIo, StrCat(path_, ": shrank from ", size_, " to ", size,
                                        " bytes while it was in use; restore it and start again")};
  }
  return {};
}

Status MappedFile::Preload(const ByteProgress& progress) const {
  const auto advise = [this](uint64_t begin, int advice) {
    if (begin >= size_) return 0;
    uint8_t* at = const_cast<uint8_t*>(data_) + begin;
    return madvise(at, std::min(kSliceBytes, size_ - begin), advice);
  };
  for (uint64_t done = 0; done < size_; done += kSliceBytes) {
    CACHALOT_RETURN_IF_ERROR(CheckUnchanged());
    // The slice after this one is being read while this one is mapped. Only a wish.
    advise(done + kSliceBytes, MADV_WILLNEED);
    if (advise(done, MADV_POPULATE_READ) != 0) {
      if (errno != EINVAL) return SystemError(path_, "preload");
      TouchPages(data_ + done, std::min(kSliceBytes, size_ - done));  // Linux before 5.14
    }
    if (progress && !progress(std::min(kSliceBytes, size_ - done))) return Stopped();
  }
  return {};
}

void MappedFile::DropPages() const {
  if (memory_ != FileMemory::kMapped || data_ == nullptr) return;
  madvise(const_cast<uint8_t*>(data_), size_, MADV_DONTNEED);
  // What is read from here on is a page here and there: read ahead would fill memory with the rest.
  madvise(const_cast<uint8_t*>(data_), size_, MADV_RANDOM);
  posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
}

Status MappedFile::Lock() const {
  if (data_ == nullptr || mlock(data_, size_) == 0) return {};
  const int code = errno;
  struct rlimit limit {};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  return Error{ErrorCode::kResourceExhausted,
               StrCat(path_, ": cannot lock ", size_, " bytes in memory: ", std::strerror(code),
                      "; the limit is ", limit.rlim_cur, " bytes (raise it with `ulimit -l`, or ",
                      "leave out --lock)")};
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
