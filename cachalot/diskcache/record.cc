// SPDX-License-Identifier: Apache-2.0
#include "cachalot/diskcache/record.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "cachalot/base/strings.h"

namespace cachalot::diskcache {
namespace {

static_assert(std::endian::native == std::endian::little, "records are little-endian");

constexpr uint8_t kVersion = 1;
constexpr size_t kChecksumAt = 48;

struct Header {
  char magic[4];
  uint8_t version;
  uint8_t kind;
  uint16_t num_ids;
  uint32_t position;
  uint32_t payload_bytes;
  Key key;
  Key parent;
  uint64_t checksum;
  uint64_t zero;
};
static_assert(sizeof(Header) == kRecordHeaderBytes);
static_assert(offsetof(Header, checksum) == kChecksumAt);

Error Corrupt(std::string message) { return {ErrorCode::kDataCorruption, std::move(message)}; }

uint64_t ChecksumOf(std::span<const uint8_t> record) {
  io::Checksum sum;
  sum.Update(record.data(), kChecksumAt);
  sum.Update(record.data() + kChecksumAt + sizeof(uint64_t),
             record.size() - kChecksumAt - sizeof(uint64_t));
  return sum.Digest();
}

// The header of bytes whose length and checksum fit it.
Result<Header> CheckBytes(std::span<const uint8_t> bytes) {
  if (bytes.size() < kRecordHeaderBytes) return Corrupt("shorter than a header");
  Header header{};
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::memcmp(header.magic, "CKVR", 4) != 0) return Corrupt("no record is here");
  if (header.version != kVersion) {
    return Error{ErrorCode::kVersionMismatch,
                 StrCat("record version ", header.version, ", this program reads ", kVersion)};
  }
  if (RecordBytes(header.num_ids, header.payload_bytes) != bytes.size()) {
    return Corrupt("its length is not what its header says");
  }
  if (header.checksum != ChecksumOf(bytes)) return Corrupt("checksum does not match");
  return header;
}

}  // namespace

Key RootKey(std::string_view identity, uint64_t scope) {
  std::vector<uint8_t> bytes(sizeof(scope) + identity.size());
  std::memcpy(bytes.data(), &scope, sizeof(scope));
  std::memcpy(bytes.data() + sizeof(scope), identity.data(), identity.size());
  return io::HashBytes(bytes.data(), bytes.size());
}

Key KeyOf(const RecordName& name) {
  struct {
    uint64_t kind;
    Key parent;
    uint32_t ids[kBlockTokens];
  } bytes{};
  bytes.kind = static_cast<uint64_t>(name.kind);
  bytes.parent = name.parent;
  const size_t count = std::min<size_t>(name.ids.size(), kBlockTokens);
  std::copy_n(name.ids.begin(), count, bytes.ids);
  return io::HashBytes(&bytes, offsetof(decltype(bytes), ids) + count * sizeof(uint32_t));
}

size_t RecordBytes(size_t num_ids, size_t payload_bytes) {
  return kRecordHeaderBytes + num_ids * sizeof(uint32_t) + payload_bytes;
}

void EncodeRecord(const RecordName& name, const Key& key, std::span<const uint8_t> payload,
                  std::vector<uint8_t>& out) {
  const size_t begin = out.size();
  const Header header{.magic = {'C', 'K', 'V', 'R'},
                      .version = kVersion,
                      .kind = static_cast<uint8_t>(name.kind),
                      .num_ids = static_cast<uint16_t>(name.ids.size()),
                      .position = name.position,
                      .payload_bytes = static_cast<uint32_t>(payload.size()),
                      .key = key,
                      .parent = name.parent,
                      .checksum = 0,
                      .zero = 0};
  out.resize(begin + RecordBytes(name.ids.size(), payload.size()));
  uint8_t* to = out.data() + begin;
  std::memcpy(to, &header, sizeof(header));
  if (!name.ids.empty()) {
    std::memcpy(to + kRecordHeaderBytes, name.ids.data(), name.ids.size_bytes());
  }
  if (!payload.empty()) {
    std::memcpy(to + kRecordHeaderBytes + name.ids.size_bytes(), payload.data(), payload.size());
  }
  const uint64_t checksum = ChecksumOf({to, out.size() - begin});
  std::memcpy(to + kChecksumAt, &checksum, sizeof(checksum));
}

Result<std::span<const uint8_t>> DecodeRecord(std::span<const uint8_t> bytes, const Key& key,
                                              const RecordName& name) {
  CACHALOT_TRY(const Header header, CheckBytes(bytes));
  if (header.kind != static_cast<uint8_t>(name.kind) || header.position != name.position ||
      !(header.key == key) || !(header.parent == name.parent)) {
    return Corrupt("another record is here");
  }
  if (header.num_ids != name.ids.size() ||
      (header.num_ids > 0 && std::memcmp(bytes.data() + kRecordHeaderBytes, name.ids.data(),
                                         name.ids.size_bytes()) != 0)) {
    return Corrupt("it is of other tokens");
  }
  return bytes.subspan(RecordBytes(header.num_ids, 0));
}

Result<ParsedRecord> ParseRecord(std::span<const uint8_t> bytes) {
  CACHALOT_TRY(const Header header, CheckBytes(bytes));
  ParsedRecord record{.kind = static_cast<RecordKind>(header.kind),
                      .key = header.key,
                      .parent = header.parent,
                      .position = header.position};
  const bool block = header.kind == static_cast<uint8_t>(RecordKind::kBlock);
  const bool state = header.kind == static_cast<uint8_t>(RecordKind::kState);
  const bool sized = block ? header.num_ids == kBlockTokens : header.num_ids < kBlockTokens;
  if ((!block && !state) || !sized ||
      header.position % kBlockTokens != header.num_ids % kBlockTokens) {
    return Corrupt("kind, ids and position do not fit each other");
  }
  record.ids.resize(header.num_ids);
  if (header.num_ids > 0) {
    std::memcpy(record.ids.data(), bytes.data() + kRecordHeaderBytes, 4 * record.ids.size());
  }
  if (!(KeyOf(record.name()) == record.key)) return Corrupt("its key is not that of its tokens");
  record.payload = bytes.subspan(RecordBytes(header.num_ids, 0));
  return record;
}

}  // namespace cachalot::diskcache
