// SPDX-License-Identifier: Apache-2.0
#include "cachalot/io/read_queue.h"

#include <fcntl.h>
#include <liburing.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <utility>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"

namespace cachalot::io {
namespace {

Error QueueError(std::string_view action, int code) {
  return {ErrorCode::kIo, StrCat("io_uring: cannot ", action, ": ", std::strerror(code))};
}

class UringQueue final : public ReadQueue {
 public:
  static std::unique_ptr<UringQueue> Create(uint32_t depth) {
    auto queue = std::unique_ptr<UringQueue>(new UringQueue());
    if (io_uring_queue_init(depth, &queue->ring_, 0) != 0) return nullptr;
    queue->open_ = true;
    return queue;
  }

  ~UringQueue() override {
    while (in_flight_ > 0) {
      if (!Next(true).ok()) break;
    }
    if (open_) io_uring_queue_exit(&ring_);
  }

  Status Submit(int fd, uint64_t offset, std::span<uint8_t> buffer, uint64_t tag) override {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    CACHALOT_CHECK(sqe != nullptr);  // more than `depth` in flight
    io_uring_prep_read(sqe, fd, buffer.data(), static_cast<unsigned>(buffer.size()), offset);
    sqe->user_data = tag;
    const int submitted = io_uring_submit(&ring_);
    if (submitted < 0) return QueueError("submit a read", -submitted);
    ++in_flight_;
    return {};
  }

  Result<Done> Next(bool wait) override {
    io_uring_cqe* cqe = nullptr;
    int error = 0;
    do {
      error = wait ? io_uring_wait_cqe(&ring_, &cqe) : io_uring_peek_cqe(&ring_, &cqe);
    } while (error == -EINTR);
    if (error == -EAGAIN && !wait) return Done{.tag = kNothing};
    if (error != 0) return QueueError("wait for a read", -error);
    const Done done{.tag = cqe->user_data, .bytes = cqe->res};
    io_uring_cqe_seen(&ring_, cqe);
    --in_flight_;
    return done;
  }

 private:
  UringQueue() = default;
  io_uring ring_{};
  bool open_ = false;
  uint32_t in_flight_ = 0;
};

class PreadQueue final : public ReadQueue {
 public:
  Status Submit(int fd, uint64_t offset, std::span<uint8_t> buffer, uint64_t tag) override {
    ssize_t n = 0;
    do {
      n = pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(offset));
    } while (n < 0 && errno == EINTR);
    done_.push_back({.tag = tag, .bytes = n < 0 ? -int64_t{errno} : n});
    return {};
  }
  Result<Done> Next(bool wait) override {
    if (done_.empty()) {
      CACHALOT_CHECK(!wait);
      return Done{.tag = kNothing};
    }
    const Done done = done_.front();
    done_.pop_front();
    return done;
  }

 private:
  std::deque<Done> done_;
};

}  // namespace

Result<DirectFile> DirectFile::Open(const std::string& path) {
  const auto failure = [&path](std::string_view action) {
    const int code = errno;
    return Error{code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                 StrCat(path, ": cannot ", action, ": ", std::strerror(code))};
  };
  DirectFile file;
  file.path_ = path;
  file.fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (file.fd_ < 0) file.fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.fd_ < 0) return failure("open");
  struct stat info {};
  if (fstat(file.fd_, &info) != 0) return failure("look at it");
  file.size_ = static_cast<uint64_t>(info.st_size);
  return file;
}

DirectFile::DirectFile(DirectFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

DirectFile& DirectFile::operator=(DirectFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

DirectFile::~DirectFile() {
  if (fd_ >= 0) close(fd_);
}

std::unique_ptr<ReadQueue> NewReadQueue(uint32_t depth) {
  std::unique_ptr<ReadQueue> queue = UringQueue::Create(depth);
  if (queue == nullptr) queue = std::make_unique<PreadQueue>();
  return queue;
}

}  // namespace cachalot::io
