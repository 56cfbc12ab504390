// SPDX-License-Identifier: Apache-2.0
#include "cachalot/stream/page_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::stream {

using io::kHugePageBytes;

Result<PageMemory> PageMemory::Allocate(uint64_t bytes) {
  PageMemory memory;
  memory.mapped_bytes_ = bytes + kHugePageBytes;
  void* base = mmap(nullptr, memory.mapped_bytes_, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return Error{ErrorCode::kResourceExhausted,
                 StrCat("no memory for ", bytes, " bytes of weights: ", std::strerror(errno),
                        "; lower --memory")};
  }
  memory.base_ = static_cast<uint8_t*>(base);
  const auto misaligned = reinterpret_cast<uintptr_t>(base) % kHugePageBytes;
  memory.data_ = memory.base_ + (misaligned == 0 ? 0 : kHugePageBytes - misaligned);
  memory.size_ = bytes;
  // A wish. Pinning the pages of a read costs a five-hundredth with huge ones.
  if (bytes >= kHugePageBytes) {
    madvise(memory.data_, bytes / kHugePageBytes * kHugePageBytes, MADV_HUGEPAGE);
  }
  CACHALOT_RETURN_IF_ERROR(memory.Populate());
  return memory;
}

// Now, not in a step: where memory is fragmented the system compacts it for each huge page, and a
// token of Flash that filled four fresh slots took three times as long (measured 2026-11-25).
Status PageMemory::Populate() {
  if (size_ == 0 || madvise(data_, size_, MADV_POPULATE_WRITE) == 0) return {};
  if (errno != EINVAL) {
    return Error{ErrorCode::kResourceExhausted,
                 StrCat("no memory for ", size_, " bytes of weights: ", std::strerror(errno),
                        "; lower --memory")};
  }
  constexpr uint64_t kSmallestPage = 4096;  // Linux before 5.14
  for (uint64_t i = 0; i < size_; i += kSmallestPage) data_[i] = 0;
  return {};
}

PageMemory::PageMemory(PageMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      base_(std::exchange(other.base_, nullptr)),
      mapped_bytes_(std::exchange(other.mapped_bytes_, 0)) {}

PageMemory& PageMemory::operator=(PageMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(base_, other.base_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  return *this;
}

PageMemory::~PageMemory() {
  if (base_ != nullptr) munmap(base_, mapped_bytes_);
}

}  // namespace cachalot::stream
