// SPDX-License-Identifier: Apache-2.0
// One record of a segment file: a header, token ids and a payload that only its writer understands.
// [docs/formats/disk-cache.md]
//
//   0   4  "CKVR"
//   4   1  version 1
//   5   1  kind: 1 block, 2 state
//   6   2  ids that follow (block: 128; state: tokens after the last complete block, < 128)
//   8   4  position: tokens up to the end of the record
//   12  4  payload bytes
//   16  16 key            32  16 parent's key
//   48  8  XXH3-64 of everything else: this header without these 8 bytes, ids, payload
//   56  8  zero
//   64     ids, 4 bytes each; then the payload. Little-endian, not aligned, not padded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/io/checksum.h"

namespace cachalot::diskcache {

inline constexpr uint32_t kBlockTokens = 128;
inline constexpr size_t kRecordHeaderBytes = 64;

using Key = io::Hash128;
struct KeyHash {
  size_t operator()(const Key& key) const { return static_cast<size_t>(key.low); }
};

enum class RecordKind : uint8_t { kBlock = 1, kState = 2 };

// What a record is: `ids` follow what `parent` stands for.
struct RecordName {
  RecordKind kind = RecordKind::kBlock;
  Key parent;  // a block's key or a root's
  uint32_t position = 0;
  std::span<const uint32_t> ids;
};

// The key under which the prefixes of one model and one scope begin.
Key RootKey(std::string_view identity, uint64_t scope);
// Of kind, parent and ids.
Key KeyOf(const RecordName& name);

size_t RecordBytes(size_t num_ids, size_t payload_bytes);
// Appends the record to `out`.
void EncodeRecord(const RecordName& name, const Key& key, std::span<const uint8_t> payload,
                  std::vector<uint8_t>& out);

// The payload inside `bytes` if they are exactly the record `name` under `key`; kDataCorruption
// saying what differs. Compares ids and parent, so a hit never rests on a hash alone. `bytes` may
// be anything. Cost: one checksum.
Result<std::span<const uint8_t>> DecodeRecord(std::span<const uint8_t> bytes, const Key& key,
                                              const RecordName& name);

// A record on its own, as `verify` and `import` meet it: consistent with its own checksum and key.
struct ParsedRecord {
  RecordKind kind = RecordKind::kBlock;
  Key key, parent;
  uint32_t position = 0;
  std::vector<uint32_t> ids;
  std::span<const uint8_t> payload;

  RecordName name() const {
    return {.kind = kind, .parent = parent, .position = position, .ids = ids};
  }
};
Result<ParsedRecord> ParseRecord(std::span<const uint8_t> bytes);

}  // namespace cachalot::diskcache
