// SPDX-License-Identifier: Apache-2.0
#include "cachalot/checkpoint/checkpoint.h"

#include <filesystem>
#include <set>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"
#include "cachalot/checkpoint/header_json.h"
#include "cachalot/checkpoint/page_owners.h"
#include "cachalot/io/checksum.h"

namespace cachalot::checkpoint {
namespace {

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";
constexpr uint64_t kMaxIndexBytes = uint64_t{256} << 20;  // Pro's is 16 MB

// Pro has 145,116. Bounds what fused experts of a hostile header may expand to.
constexpr size_t kMaxTensors = size_t{1} << 22;

// Shard file name -> tensor names it must hold, from the index.
struct Index {
  std::set<std::string> shards;
  std::unordered_map<std::string, std::string> shard_of;
};

Result<Index> ReadIndex(const std::string& path) {
  CACHALOT_TRY(const std::string text, io::ReadFile(path, kMaxIndexBytes));
  CACHALOT_TRY(std::vector<WeightMapEntry> entries, ReadWeightMap(text, path));
  Index index;
  index.shard_of.reserve(entries.size());
  for (WeightMapEntry& entry : entries) {
    index.shards.insert(entry.shard);
    index.shard_of.emplace(std::move(entry.tensor), std::move(entry.shard));
  }
  return index;
}

// A copy that is spread over memory nodes needs to know beforehand where the tensors are.
Result<io::MappedFile> OpenShard(const std::string& path, const OpenOptions& options) {
  const Placement& placement = options.placement;
  if (options.memory == io::FileMemory::kMapped || placement.workers.empty() ||
      placement.Parts().num() == 1) {
    return io::MappedFile::Open(path, options.memory, options.progress);
  }
  CACHALOT_TRY(const io::MappedFile mapped, io::MappedFile::Open(path));
  CACHALOT_TRY(const std::vector<TensorInfo> tensors,
               ParseSafetensors(path, mapped.data(), mapped.size()));
  return io::MappedFile::OpenCopy(path, CopyParts(mapped, tensors, placement), options.progress);
}

}  // namespace

Result<std::shared_ptr<const Checkpoint>> Checkpoint::Open(const std::string& dir,
                                                           const OpenOptions& options) {
  namespace fs = std::filesystem;
  std::error_code ec;
  if (!fs::is_directory(dir, ec)) {
    return Error{ErrorCode::kNotFound, StrCat(dir, ": no such directory")};
  }
  std::shared_ptr<Checkpoint> ckpt(new Checkpoint());
  ckpt->dir_ = dir;
  Index index;
  const std::string index_path = StrCat(dir, "/", kIndexName);
  if (fs::exists(index_path, ec)) {
    CACHALOT_TRY(index, ReadIndex(index_path));
  } else if (fs::exists(StrCat(dir, "/", kSingleName), ec)) {
    index.shards.insert(kSingleName);
  } else {
    return Error{ErrorCode::kNotFound,
                 StrCat(dir, ": neither ", kIndexName, " nor ", kSingleName, " is there")};
  }
  for (const std::string& shard : index.shards) {
    CACHALOT_RETURN_IF_ERROR(ckpt->AddShard(shard, options, index.shard_of));
  }
  CACHALOT_RETURN_IF_ERROR(ckpt->BuildNames(index_path, index.shard_of));
  return std::shared_ptr<const Checkpoint>(std::move(ckpt));
}

Status Checkpoint::Preload(const io::ByteProgress& progress) const {
  for (const io::MappedFile& shard : shards_) CACHALOT_RETURN_IF_ERROR(shard.Preload(progress));
  return {};
}

Checkpoint::Place Checkpoint::Locate(const uint8_t* data) const {
  for (uint32_t i = 0; i < shards_.size(); ++i) {
    const uint8_t* begin = shards_[i].data();
    if (data >= begin && data < begin + shards_[i].size()) {
      return {.shard = i, .offset = static_cast<uint64_t>(data - begin)};
    }
  }
  CACHALOT_CHECK(false);  // not a pointer into a shard
  return {};
}

void Checkpoint::DropPages() const {
  for (const io::MappedFile& shard : shards_) shard.DropPages();
}

Status Checkpoint::Lock() const {
  for (const io::MappedFile& shard : shards_) CACHALOT_RETURN_IF_ERROR(shard.Lock());
  return {};
}

Status Checkpoint::AddShard(const std::string& shard, const OpenOptions& options,
                            const std::unordered_map<std::string, std::string>& shard_of) {
  auto opened = OpenShard(StrCat(dir_, "/", shard), options);
  if (!opened.ok() && opened.error().code == ErrorCode::kNotFound) {
    return Error{ErrorCode::kNotFound, StrCat(opened.error().message, "; ", kIndexName,
                                              " names it: is the download complete?")};
  }
  CACHALOT_TRY(io::MappedFile file, std::move(opened));
  CACHALOT_TRY(std::vector<TensorInfo> tensors,
               ParseSafetensors(file.path(), file.data(), file.size()));
  for (TensorInfo& info : tensors) {
    const auto listed = shard_of.find(info.name);
    if (!shard_of.empty() && (listed == shard_of.end() || listed->second != shard)) {
      return Error{ErrorCode::kDataCorruption,
                   StrCat(file.path(), ": tensor '", info.name, "' is here, the index says ",
                          listed == shard_of.end() ? "nowhere" : listed->second)};
    }
    total_bytes_ += info.bytes;
    AppendOfficial(std::move(info), tensors_);
    if (tensors_.size() > kMaxTensors) {
      return Error{ErrorCode::kResourceExhausted,
                   StrCat(file.path(), ": more than ", kMaxTensors, " tensors so far")};
    }
  }
  shards_.push_back(std::move(file));
  return {};
}

Status Checkpoint::BuildNames(const std::string& index_path,
                              const std::unordered_map<std::string, std::string>& shard_of) {
  by_name_.reserve(tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!by_name_.emplace(tensors_[i].name, i).second) {
      return Error{ErrorCode::kDataCorruption,
                   StrCat(dir_, ": tensor '", tensors_[i].name, "' appears twice")};
    }
  }
  for (const auto& [name, shard] : shard_of) {
    // Names of a re-saved checkpoint were translated; only official ones can be looked up here.
    if (IsOfficialName(name) && !by_name_.contains(name)) {
      return Error{ErrorCode::kDataCorruption,
                   StrCat(index_path, ": tensor '", name, "' is said to be in ", shard,
                          ", which does not have it")};
    }
  }
  return {};
}

const TensorInfo* Checkpoint::Find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

std::string Checkpoint::Fingerprint() const {
  constexpr uint64_t kPages = 64;
  constexpr uint64_t kPageBytes = 4096;
  std::string text;
  for (const io::MappedFile& shard : shards_) {
    io::Checksum sum;
    for (uint64_t i = 0; i < kPages && shard.size() > 0; ++i) {
      const uint64_t begin = shard.size() / kPages * i;
      sum.Update(shard.data() + begin, std::min(kPageBytes, shard.size() - begin));
    }
    const std::string name = std::filesystem::path(shard.path()).filename().string();
    text += StrCat(name, " ", shard.size(), " ", shard.modified_ns(), " ", sum.Digest(), "\n");
  }
  return text;
}

Status Checkpoint::CheckUnchanged() const {
  for (const io::MappedFile& shard : shards_) CACHALOT_RETURN_IF_ERROR(shard.CheckUnchanged());
  return {};
}

}  // namespace cachalot::checkpoint
