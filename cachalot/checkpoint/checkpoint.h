// SPDX-License-Identifier: Apache-2.0
// A directory of safetensors shards, memory-mapped, looked up by tensor name.
// [docs/formats/safetensors.md]
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/tensor/dtype.h"
#include "cachalot/threading/placement.h"

namespace cachalot::checkpoint {

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
  const uint8_t* data = nullptr;  // any alignment; lives as long as the Checkpoint
  uint64_t bytes = 0;             // == product(shape) * DTypeBytes(dtype), inside the file

  uint64_t num_elements() const;
};

// Parses one safetensors header (the first `file_bytes` of `name`): lengths, offsets inside the
// file, no overlaps, holes or trailing bytes, no name twice, dtype known, size == shape.
// O(n log n) in tensors.
Result<std::vector<TensorInfo>> ParseSafetensors(std::string_view name, const uint8_t* data,
                                                 uint64_t file_bytes);

// False for the names of a checkpoint re-saved by Hugging Face transformers.
bool IsOfficialName(std::string_view name);
// Appends `info` under its official name; fused experts become one tensor an expert, unless the
// shape is none they can have: such a tensor keeps its name and binding will say what is missing.
// [model.md 2.7]
void AppendOfficial(TensorInfo info, std::vector<TensorInfo>& out);

// How the shards come into memory.
struct OpenOptions {
  io::FileMemory memory = io::FileMemory::kMapped;
  io::ByteProgress progress;  // of copying
  // Of the workers that will multiply: with more than one memory node, copies are spread over them
  // [page_owners.h]. Empty: wherever the system puts them.
  Placement placement;
};

class Checkpoint {
 public:
  // Opens dir/model.safetensors.index.json and every shard it names, or dir/model.safetensors.
  // Checks that the index and the shards agree. Maps, never copies. Names re-saved by Hugging Face
  // transformers are translated to the official ones [model.md 2.7].
  // With FileMemory::kHugePages the shards are copied, all bytes of them, which takes as long as
  // reading the disk.
  static Result<std::shared_ptr<const Checkpoint>> Open(const std::string& dir,
                                                        const OpenOptions& options = {});

  // nullptr if absent.
  const TensorInfo* Find(std::string_view name) const;
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  uint64_t total_bytes() const { return total_bytes_; }
  const std::string& dir() const { return dir_; }
  // kIo naming the shard if one has become shorter than it was when mapped (reading it would
  // fault).
  Status CheckUnchanged() const;
  // A text that changes when a weight may have: name, size, modification time and a hash of 64
  // evenly spread pages of each shard. Not of all bytes: that would read the whole checkpoint; an
  // edit between the pages shows in the time. Cost: 64 pages a shard.
  std::string Fingerprint() const;
  // Where bytes that a tensor's `data` points at are in the files.
  struct Place {
    uint32_t shard = 0;
    uint64_t offset = 0;
  };
  Place Locate(const uint8_t* data) const;
  size_t num_shards() const { return shards_.size(); }
  const std::string& shard_path(uint32_t shard) const { return shards_[shard].path(); }
  // Gives the pages of the maps back: they are read again if they are touched again.
  void DropPages() const;
  // MappedFile's, shard after shard.
  Status Preload(const io::ByteProgress& progress) const;
  Status Lock() const;

 private:
  Checkpoint() = default;
  // `shard_of` (tensor -> shard, from the index) is empty without an index.
  Status AddShard(const std::string& shard, const OpenOptions& options,
                  const std::unordered_map<std::string, std::string>& shard_of);
  Status BuildNames(const std::string& index_path,
                    const std::unordered_map<std::string, std::string>& shard_of);

  std::string dir_;
  std::vector<io::MappedFile> shards_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;
  uint64_t total_bytes_ = 0;
};

// Writes one safetensors file from tensors in memory (golden exports, logits, tests): temporary
// name, fsync, rename.
Status WriteSafetensors(const std::string& path, const std::vector<TensorInfo>& tensors);

}  // namespace cachalot::checkpoint
