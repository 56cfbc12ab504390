// SPDX-License-Identifier: Apache-2.0
// 64-byte aligned arrays of plain data, zero-filled, for activations and scratch.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <type_traits>

namespace cachalot {

inline constexpr size_t kCacheLineBytes = 64;

template <typename T>
class AlignedBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  AlignedBuffer() = default;
  // Throws std::bad_alloc without memory, as every container does; Create functions turn that into
  // an Error. Sizes that come from a file or a request are checked by their owner before.
  explicit AlignedBuffer(size_t size) : size_(size) {
    const size_t bytes =
        (size * sizeof(T) + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes;
    data_.reset(
        static_cast<T*>(std::aligned_alloc(kCacheLineBytes, bytes ? bytes : kCacheLineBytes)));
    if (data_ == nullptr) throw std::bad_alloc();
    if (size > 0) std::memset(static_cast<void*>(data_.get()), 0, bytes);
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }
  std::span<T> span() { return {data_.get(), size_}; }
  std::span<const T> span() const { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(T* p) const { std::free(static_cast<void*>(p)); }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

}  // namespace cachalot
