// SPDX-License-Identifier: Apache-2.0
// A safetensors file of float32 matrices written as their rows are computed: logits of a long text
// are larger than memory should hold (100,000 tokens of V4 are 52 GB).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::cli {

struct RowTensor {
  std::string name;
  uint64_t rows = 0;
  uint64_t cols = 0;
};

// The file appears under its name only when complete: header first, then rows in place in
// PATH.tmp-PID, fsync, rename, fsync of the folder. The destructor removes an unfinished file.
class RowFile {
 public:
  // kIo with the path and the reason, kResourceExhausted with the needed bytes if the disk is
  // short.
  static Result<RowFile> Create(const std::string& path, const std::vector<RowTensor>& tensors);
  RowFile(RowFile&& other) noexcept;
  RowFile& operator=(RowFile&&) = delete;
  ~RowFile();

  // Writes `rows` of tensor `index` from row `first`.
  Status Write(size_t index, uint64_t first, MatView<const float> rows);
  Status Publish();

 private:
  RowFile() = default;
  Status WriteAt(uint64_t offset, std::span<const char> bytes);

  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  std::vector<RowTensor> tensors_;
  std::vector<uint64_t> offsets_;  // of each tensor in the file
};

}  // namespace cachalot::cli
