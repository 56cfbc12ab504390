// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/dataset.h"

#include <algorithm>
#include <filesystem>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"

namespace cachalot::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexName = "dataset.json";
constexpr uint64_t kMaxIndexBytes = 16 << 20;
// 64 MiB of two-byte ids: large enough that a terabyte is a few thousand files, small enough to be
// put together in memory.
constexpr uint64_t kShardTokens = uint64_t{32} << 20;
constexpr uint32_t kIndexVersion = 1;

}  // namespace

DatasetWriter::DatasetWriter(std::string dir, uint32_t vocab_size, uint64_t tokenizer_checksum)
    : dir_(std::move(dir)),
      vocab_size_(vocab_size),
      tokenizer_checksum_(tokenizer_checksum),
      builder_(vocab_size, tokenizer_checksum) {}

Result<DatasetWriter> DatasetWriter::Create(const std::string& dir, uint32_t vocab_size,
                                            uint64_t tokenizer_checksum) {
  std::error_code ec;
  fs::create_directories(dir, ec);
  if (ec) return Error{ErrorCode::kIo, StrCat(dir, ": cannot create: ", ec.message())};
  if (!fs::is_empty(dir, ec) || ec) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(dir, ": is not empty; remove it or choose another folder")};
  }
  return DatasetWriter(dir, vocab_size, tokenizer_checksum);
}

Status DatasetWriter::Add(const Sample& sample) {
  builder_.Add(sample);
  ++num_samples_;
  num_tokens_ += sample.ids.size();
  return builder_.num_tokens() >= kShardTokens ? Flush() : Status();
}

Status DatasetWriter::Flush() {
  if (builder_.num_samples() == 0) return {};
  const std::string name = fmt::format("shard-{:05}.tokens", files_.size());
  files_.push_back(name);
  return io::WriteFileAtomic(StrCat(dir_, "/", name), builder_.Take());
}

void DatasetWriter::Abandon() {
  std::error_code ec;
  for (const std::string& name : files_) fs::remove(StrCat(dir_, "/", name), ec);
  fs::remove(dir_, ec);  // only if nothing else is in it
}

Status DatasetWriter::Finish() {
  CACHALOT_RETURN_IF_ERROR(Flush());
  const Json index = {{"format", "cachalot-tokens"},
                      {"version", kIndexVersion},
                      {"vocab_size", vocab_size_},
                      {"tokenizer_checksum", fmt::format("{:016x}", tokenizer_checksum_)},
                      {"samples", num_samples_},
                      {"tokens", num_tokens_},
                      {"shards", files_}};
  return io::WriteFileAtomic(StrCat(dir_, "/", kIndexName), index.dump(2) + "\n");
}

Result<std::shared_ptr<const Dataset>> Dataset::Open(const std::string& dir) {
  const std::string path = StrCat(dir, "/", kIndexName);
  auto text = io::ReadFile(path, kMaxIndexBytes);
  if (!text.ok()) {
    if (text.error().code != ErrorCode::kNotFound) return text.error();
    return Error{ErrorCode::kNotFound,
                 StrCat(dir, ": no ", kIndexName, "; make a dataset with cachalot data build")};
  }
  CACHALOT_TRY(const Json index, ParseJson(*text, path));
  const auto corrupt = [&](const std::string& what) {
    return Error{ErrorCode::kDataCorruption, StrCat(path, ": ", what)};
  };
  if (!index.is_object() || index.value("format", Json()) != "cachalot-tokens") {
    return corrupt("is no index of token shards");
  }
  if (index.value("version", Json()) != kIndexVersion) {
    return Error{ErrorCode::kVersionMismatch,
                 StrCat(path, ": version is ", index.value("version", Json()).dump().substr(0, 40),
                        ", this program reads ", kIndexVersion)};
  }
  const Json shards = index.value("shards", Json());
  if (!shards.is_array()) return corrupt("shards is no list");
  std::shared_ptr<Dataset> set(new Dataset());
  set->first_sample_.push_back(0);
  for (const Json& name : shards) {
    const std::string file = name.is_string() ? name.get<std::string>() : "";
    if (file.empty() || file.find('/') != std::string::npos) {
      return corrupt(StrCat("shard ", set->shards_.size(), " is no plain file name"));
    }
    CACHALOT_TRY(TokenShard shard, TokenShard::Open(StrCat(dir, "/", file)));
    if (set->shards_.empty()) {
      set->vocab_size_ = shard.vocab_size();
      set->tokenizer_checksum_ = shard.tokenizer_checksum();
    } else if (shard.tokenizer_checksum() != set->tokenizer_checksum_ ||
               shard.vocab_size() != set->vocab_size_) {
      return corrupt(StrCat(file, " comes from another tokenizer than the shards before it"));
    }
    set->num_tokens_ += shard.num_tokens();
    set->first_sample_.push_back(set->first_sample_.back() + shard.num_samples());
    set->shards_.push_back(std::move(shard));
  }
  if (set->num_samples() == 0) return corrupt("holds no samples");
  return std::shared_ptr<const Dataset>(std::move(set));
}

size_t Dataset::ShardOf(uint64_t sample) const {
  CACHALOT_CHECK(sample < num_samples());
  const auto after = std::upper_bound(first_sample_.begin(), first_sample_.end(), sample);
  return static_cast<size_t>(after - first_sample_.begin()) - 1;
}

uint64_t Dataset::SampleLength(uint64_t sample) const {
  const size_t s = ShardOf(sample);
  const uint64_t local = sample - first_sample_[s];
  return shards_[s].begin(local + 1) - shards_[s].begin(local);
}

void Dataset::Read(uint64_t sample, uint64_t begin, uint64_t count, Sample& out) const {
  const size_t s = ShardOf(sample);
  const TokenShard& shard = shards_[s];
  const uint64_t local = sample - first_sample_[s];
  const uint64_t first = shard.begin(local) + begin;
  const uint64_t end = std::min(shard.begin(local + 1), first + count);
  for (uint64_t i = first; i < end; ++i) {
    out.ids.push_back(shard.token(i));
    out.is_target.push_back(shard.is_target(i) ? 1 : 0);
  }
}

}  // namespace cachalot::train
