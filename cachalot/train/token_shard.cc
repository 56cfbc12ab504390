// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/token_shard.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"
#include "cachalot/io/checksum.h"

namespace cachalot::train {
namespace {

static_assert(std::endian::native == std::endian::little, "token shards are little-endian");

constexpr char kMagic[8] = {'C', 'A', 'C', 'H', 'T', 'O', 'K', '\n'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kByteOrder = 0x01020304;
constexpr uint32_t kMaxVocab = 1u << 24;

// Laid out as docs/formats/token_shards.md draws it.
struct Header {
  char magic[8];
  uint32_t version;
  uint32_t byte_order;
  uint32_t token_bytes;
  uint32_t vocab_size;
  uint64_t num_samples;
  uint64_t num_tokens;
  uint64_t tokenizer_checksum;
  uint64_t body_checksum;
  uint64_t header_checksum;  // of all before it
};
static_assert(sizeof(Header) == 64);

uint64_t RoundUp8(uint64_t n) { return (n + 7) / 8 * 8; }

uint32_t TokenBytes(uint32_t vocab_size) { return vocab_size <= 0x10000 ? 2 : 4; }

template <typename T>
T Load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

Status CheckHeader(const Header& h, std::string_view name, uint64_t size) {
  const auto corrupt = [&](const std::string& what) {
    return Error{ErrorCode::kDataCorruption, StrCat(name, ": ", what)};
  };
  if (std::memcmp(h.magic, kMagic, sizeof(kMagic)) != 0) {
    return corrupt("is no token shard; make one with cachalot data build");
  }
  if (h.byte_order != kByteOrder) return corrupt("byte order mark is not that of little-endian");
  if (h.version != kVersion) {
    return Error{ErrorCode::kVersionMismatch,
                 StrCat(name, ": token shard version ", h.version, ", this program reads ",
                        kVersion, "; build it again with cachalot data build")};
  }
  if (h.header_checksum != io::Checksum64(&h, offsetof(Header, header_checksum))) {
    return corrupt("the header's checksum does not match");
  }
  if (h.vocab_size == 0 || h.vocab_size > kMaxVocab || h.token_bytes != TokenBytes(h.vocab_size)) {
    return corrupt(StrCat("vocabulary ", h.vocab_size, " with ", h.token_bytes, " bytes a token"));
  }
  // Each bound keeps the sums below far from overflow.
  if (h.num_samples > size / 8 || h.num_tokens > size / h.token_bytes) {
    return corrupt(StrCat("claims ", h.num_samples, " samples and ", h.num_tokens, " tokens in ",
                          size, " bytes"));
  }
  const uint64_t wanted = sizeof(Header) + 8 * h.num_samples + RoundUp8((h.num_tokens + 7) / 8) +
                          RoundUp8(h.num_tokens * h.token_bytes);
  if (size != wanted) {
    return corrupt(StrCat(size, " bytes, its header needs ", wanted, "; the file is cut or grew"));
  }
  return {};
}

}  // namespace

TokenShardBuilder::TokenShardBuilder(uint32_t vocab_size, uint64_t tokenizer_checksum)
    : vocab_size_(vocab_size),
      token_bytes_(TokenBytes(vocab_size)),
      tokenizer_checksum_(tokenizer_checksum) {
  CACHALOT_CHECK(vocab_size > 0 && vocab_size <= kMaxVocab);
}

void TokenShardBuilder::Add(const Sample& sample) {
  CACHALOT_CHECK(sample.ids.size() >= 2 && sample.is_target.size() == sample.ids.size());
  uint64_t at = num_tokens();
  for (size_t i = 0; i < sample.ids.size(); ++i, ++at) {
    CACHALOT_CHECK(sample.ids[i] < vocab_size_);
    if (at % 8 == 0) targets_.push_back('\0');
    if (sample.is_target[i] != 0) {
      targets_.back() = static_cast<char>(static_cast<uint8_t>(targets_.back()) | (1u << (at % 8)));
    }
    tokens_.append(reinterpret_cast<const char*>(&sample.ids[i]), token_bytes_);
  }
  ends_.push_back(at);
}

std::string TokenShardBuilder::Take() {
  Header h{.version = kVersion,
           .byte_order = kByteOrder,
           .token_bytes = token_bytes_,
           .vocab_size = vocab_size_,
           .num_samples = num_samples(),
           .num_tokens = num_tokens(),
           .tokenizer_checksum = tokenizer_checksum_,
           .body_checksum = 0,
           .header_checksum = 0};
  std::memcpy(h.magic, kMagic, sizeof(kMagic));
  std::string bytes(sizeof(Header), '\0');
  bytes.append(reinterpret_cast<const char*>(ends_.data()), 8 * ends_.size());
  bytes += targets_;
  bytes.resize(RoundUp8(bytes.size()));
  bytes += tokens_;
  bytes.resize(RoundUp8(bytes.size()));
  h.body_checksum = io::Checksum64(bytes.data() + sizeof(Header), bytes.size() - sizeof(Header));
  h.header_checksum = io::Checksum64(&h, offsetof(Header, header_checksum));
  std::memcpy(bytes.data(), &h, sizeof(h));
  ends_.clear();
  targets_.clear();
  tokens_.clear();
  return bytes;
}

Result<TokenShard> TokenShard::Open(const std::string& path) {
  CACHALOT_TRY(io::MappedFile file, io::MappedFile::Open(path));
  CACHALOT_TRY(TokenShard shard, Parse(path, file.data(), file.size()));
  shard.file_ = std::make_unique<io::MappedFile>(std::move(file));
  return shard;
}

Result<TokenShard> TokenShard::Parse(std::string_view name, const uint8_t* data, uint64_t size) {
  if (size < sizeof(Header)) {
    return Error{ErrorCode::kDataCorruption,
                 StrCat(name, ": ", size, " bytes, a token shard has at least ", sizeof(Header))};
  }
  const auto h = Load<Header>(data);
  CACHALOT_RETURN_IF_ERROR(CheckHeader(h, name, size));
  if (h.body_checksum != io::Checksum64(data + sizeof(Header), size - sizeof(Header))) {
    return Error{ErrorCode::kDataCorruption,
                 StrCat(name, ": the checksum of its content does not match; build it again")};
  }
  TokenShard shard;
  shard.ends_ = data + sizeof(Header);
  shard.targets_ = shard.ends_ + 8 * h.num_samples;
  shard.tokens_ = shard.targets_ + RoundUp8((h.num_tokens + 7) / 8);
  shard.num_samples_ = h.num_samples;
  shard.num_tokens_ = h.num_tokens;
  shard.tokenizer_checksum_ = h.tokenizer_checksum;
  shard.vocab_size_ = h.vocab_size;
  shard.token_bytes_ = h.token_bytes;
  uint64_t last = 0;
  for (uint64_t s = 0; s < h.num_samples; ++s) {
    const uint64_t end = shard.begin(s + 1);
    if (end < last + 2 || end > h.num_tokens) {
      return Error{ErrorCode::kDataCorruption, StrCat(name, ": sample ", s, " is tokens ", last,
                                                      " to ", end, " of ", h.num_tokens)};
    }
    last = end;
  }
  if (last != h.num_tokens) {
    return Error{ErrorCode::kDataCorruption,
                 StrCat(name, ": samples end at token ", last, " of ", h.num_tokens)};
  }
  for (uint64_t i = 0; i < h.num_tokens; ++i) {
    if (shard.token(i) >= h.vocab_size) {
      return Error{ErrorCode::kDataCorruption, StrCat(name, ": token ", i, " is ", shard.token(i),
                                                      ", the vocabulary has ", h.vocab_size)};
    }
  }
  return shard;
}

uint64_t TokenShard::begin(uint64_t sample) const {
  return sample == 0 ? 0 : Load<uint64_t>(ends_ + 8 * (sample - 1));
}

uint32_t TokenShard::token(uint64_t i) const {
  return token_bytes_ == 2 ? Load<uint16_t>(tokens_ + 2 * i) : Load<uint32_t>(tokens_ + 4 * i);
}

}  // namespace cachalot::train
