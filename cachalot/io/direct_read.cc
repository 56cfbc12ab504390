// SPDX-License-Identifier: Apache-2.0
#include "cachalot/io/direct_read.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"
#include "cachalot/io/read_queue.h"

namespace cachalot::io {
namespace {

using Clock = std::chrono::steady_clock;

struct Free {
  void operator()(uint8_t* p) const { std::free(p); }
};

// What the reading threads share. Relaxed counters: only totals after the join are looked at.
struct Job {
  int fd = -1;
  DirectReadOptions options;
  uint64_t num_blocks = 0;  // to read
  uint64_t stride = 0;      // blocks of the file from one read to the next
  Clock::time_point begin;
  std::atomic<uint64_t> next{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<int> error{0};
};

void ReadBlocks(Job& job) {
  const std::unique_ptr<uint8_t, Free> buffer(
      static_cast<uint8_t*>(std::aligned_alloc(kDirectAlignment, job.options.block_bytes)));
  if (buffer == nullptr) {
    job.error = ENOMEM;
    return;
  }
  const std::chrono::duration<double> limit(job.options.max_seconds);
  while (job.error == 0 && Clock::now() - job.begin < limit) {
    const uint64_t block = job.next.fetch_add(1, std::memory_order_relaxed);
    if (block >= job.num_blocks) return;
    const auto offset = static_cast<off_t>(block * job.stride * job.options.block_bytes);
    const ssize_t got = pread(job.fd, buffer.get(), job.options.block_bytes, offset);
    if (got < 0 && errno != EINTR) job.error = errno;
    if (got > 0) job.bytes.fetch_add(static_cast<uint64_t>(got), std::memory_order_relaxed);
  }
}

Error ReadError(const std::string& path, int code) {
  if (code == EINVAL) {
    return {ErrorCode::kUnsupported, StrCat(path, ": its file system has no direct reads")};
  }
  return {code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
          StrCat(path, ": direct read: ", std::strerror(code))};
}

}  // namespace

Result<DirectReadSpeed> MeasureDirectReads(const std::string& path,
                                           const DirectReadOptions& options) {
  CACHALOT_CHECK(options.depth >= 1 && options.block_bytes >= kDirectAlignment &&
                 options.block_bytes % kDirectAlignment == 0);
  Job job;
  job.options = options;
  job.fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (job.fd < 0) return ReadError(path, errno);
  struct stat info {};
  const int failed = fstat(job.fd, &info) != 0 ? errno : 0;
  const uint64_t file_blocks = static_cast<uint64_t>(info.st_size) / options.block_bytes;
  job.num_blocks = std::min(file_blocks, options.max_bytes / options.block_bytes);
  if (failed != 0 || job.num_blocks == 0) {
    close(job.fd);
    if (failed != 0) return ReadError(path, failed);
    return Error{ErrorCode::kUnsupported,
                 StrCat(path, ": ", info.st_size, " bytes are too few to measure direct reads")};
  }
  job.stride = file_blocks / job.num_blocks;
  job.begin = Clock::now();
  {
    std::vector<std::jthread> threads;
    for (uint32_t i = 0; i < options.depth; ++i) threads.emplace_back([&job] { ReadBlocks(job); });
  }
  const std::chrono::duration<double> elapsed = Clock::now() - job.begin;
  close(job.fd);
  if (job.error != 0) return ReadError(path, job.error);
  return DirectReadSpeed{.bytes_per_s = static_cast<double>(job.bytes) / elapsed.count(),
                         .bytes = job.bytes};
}

}  // namespace cachalot::io
