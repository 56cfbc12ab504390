// SPDX-License-Identifier: Apache-2.0
// Owners of activations, and a weight beside its gradient.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cachalot/tensor/matrix.h"
#include "cachalot/threading/aligned_buffer.h"
#include "cachalot/train/parameters.h"

namespace cachalot::train {

// [rows, cols], contiguous. Resize keeps the memory when it suffices, so that a training step
// allocates nothing once the longest batch has been seen; contents are unspecified after it.
template <typename T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(size_t rows, size_t cols) { Resize(rows, cols); }

  MatView<T> Resize(size_t rows, size_t cols) {
    if (rows * cols > buffer_.size()) {
      buffer_ = {};  // before the larger one: never both
      buffer_ = AlignedBuffer<T>(rows * cols);
    }
    rows_ = rows;
    cols_ = cols;
    return view();
  }
  MatView<T> ResizeZero(size_t rows, size_t cols) {
    Resize(rows, cols);
    for (size_t i = 0; i < rows * cols; ++i) buffer_[i] = T{0};
    return view();
  }
  MatView<T> view() { return {buffer_.data(), rows_, cols_}; }
  MatView<const T> view() const { return {buffer_.data(), rows_, cols_}; }
  T* data() { return buffer_.data(); }
  const T* data() const { return buffer_.data(); }
  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  size_t bytes() const { return buffer_.size() * sizeof(T); }

 private:
  AlignedBuffer<T> buffer_;
  size_t rows_ = 0;
  size_t cols_ = 0;
};

// The same values seen as [rows, cols] of another shape; `view` is contiguous.
template <typename T>
MatView<T> Reshape(MatView<T> view, size_t rows, size_t cols) {
  CACHALOT_DCHECK(view.stride == view.cols && rows * cols == view.rows * view.cols);
  return {view.data, rows, cols};
}

// Whether a backward op adds to the gradient of its input, which is the rule, or is the first to
// write it: then nobody has to clear it before.
enum class Write : uint8_t { kAdd, kOverwrite };

// A parameter as an op sees it: reads `value`, adds into `grad`.
template <typename T>
struct Weight {
  MatView<const T> value;
  MatView<T> grad;
  bool bf16 = false;  // its products may round their operands to BF16 (kernels::GemmJobT)

  Weight() = default;
  explicit Weight(ParameterT<T>& p)
      : value(p.value.data(), p.rows, p.cols), grad(p.grad.data(), p.rows, p.cols) {}
  // Where the backward pass of source `s` adds (see ExpertRun): gradients of several sources lie
  // one after the other.
  MatView<T> GradientOf(size_t s) const {
    return {grad.data + s * grad.rows * grad.cols, grad.rows, grad.cols};
  }
  Weight Rows(size_t begin, size_t count) const {
    Weight part;
    part.value = value.Rows(begin, count);
    part.grad = grad.Rows(begin, count);
    part.bf16 = bf16;
    return part;
  }
};

}  // namespace cachalot::train
