// SPDX-License-Identifier: Apache-2.0
// Memory that a disk may write into: pages of its own, huge ones where the system has them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cachalot/base/error.h"

namespace cachalot::stream {

// Zero pages, all of them there from the start. Movable; unmapped on destruction.
class PageMemory {
 public:
  PageMemory() = default;
  // kResourceExhausted where the address space or the system does not have it.
  static Result<PageMemory> Allocate(uint64_t bytes);
  PageMemory(PageMemory&& other) noexcept;
  PageMemory& operator=(PageMemory&& other) noexcept;
  ~PageMemory();

  uint8_t* data() const { return data_; }  // aligned to 2 MiB
  uint64_t size() const { return size_; }

 private:
  Status Populate();

  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
  uint8_t* base_ = nullptr;
  uint64_t mapped_bytes_ = 0;
};

}  // namespace cachalot::stream
