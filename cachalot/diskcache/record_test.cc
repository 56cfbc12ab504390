// SPDX-License-Identifier: Apache-2.0
// A record reads back whole, and any change of it is noticed.
#include "cachalot/diskcache/record.h"

#include <gtest/gtest.h>

#include <numeric>

#include "cachalot/base/rng.h"

namespace cachalot::diskcache {
namespace {

struct Sample {
  std::vector<uint32_t> ids;
  std::vector<uint8_t> payload;
  RecordName name;
  Key key;
  std::vector<uint8_t> bytes;
};

Sample Make(RecordKind kind, size_t num_ids, size_t payload) {
  Sample s;
  s.ids.resize(num_ids);
  std::iota(s.ids.begin(), s.ids.end(), 17u);
  for (size_t i = 0; i < payload; ++i) {
    s.payload.push_back(static_cast<uint8_t>(CounterRandom(3, 0, i)));
  }
  s.name = {.kind = kind,
            .parent = RootKey("model", 5),
            .position = static_cast<uint32_t>(1280 + num_ids),
            .ids = s.ids};
  s.key = KeyOf(s.name);
  EncodeRecord(s.name, s.key, s.payload, s.bytes);
  return s;
}

TEST(RecordTest, ReadsBack) {
  for (const size_t payload : {0, 1, 777}) {
    const Sample s = Make(RecordKind::kBlock, 128, payload);
    EXPECT_EQ(s.bytes.size(), RecordBytes(128, payload));
    const auto read = DecodeRecord(s.bytes, s.key, s.name);
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(std::vector(read->begin(), read->end()), s.payload);
    const auto parsed = ParseRecord(s.bytes);
    ASSERT_TRUE(parsed.ok()) << parsed.error().message;
    EXPECT_EQ(parsed->ids, s.ids);
    EXPECT_EQ(parsed->position, s.name.position);
  }
}

// Every bit, and every length.
TEST(RecordTest, AnyChangeIsNoticed) {
  const Sample s = Make(RecordKind::kState, 57, 40);
  for (size_t bit = 0; bit < 8 * s.bytes.size(); ++bit) {
    std::vector<uint8_t> bytes = s.bytes;
    bytes[bit / 8] = static_cast<uint8_t>(bytes[bit / 8] ^ (1u << bit % 8));
    EXPECT_FALSE(DecodeRecord(bytes, s.key, s.name).ok()) << "bit " << bit;
    EXPECT_FALSE(ParseRecord(bytes).ok()) << "bit " << bit;
  }
  for (size_t length = 0; length < s.bytes.size(); ++length) {
    EXPECT_FALSE(DecodeRecord(std::span(s.bytes).first(length), s.key, s.name).ok());
  }
}

// Equal hashes are not taken on trust: ids, parent, kind and place are compared.
TEST(RecordTest, AnotherNameUnderTheSameKeyIsRefused) {
  const Sample s = Make(RecordKind::kBlock, 128, 40);
  std::vector<uint32_t> ids = s.ids;
  ids[77] ^= 1;
  RecordName other = s.name;
  other.ids = ids;
  EXPECT_FALSE(DecodeRecord(s.bytes, s.key, other).ok());
  other = s.name;
  other.parent = RootKey("model", 6);
  EXPECT_FALSE(DecodeRecord(s.bytes, s.key, other).ok());
  other = s.name;
  other.position += 128;
  EXPECT_FALSE(DecodeRecord(s.bytes, s.key, other).ok());
  other = s.name;
  other.kind = RecordKind::kState;
  EXPECT_FALSE(DecodeRecord(s.bytes, s.key, other).ok());
}

TEST(RecordTest, KeysDependOnEverythingInTheName) {
  const Sample s = Make(RecordKind::kBlock, 128, 0);
  EXPECT_FALSE(RootKey("model", 5) == RootKey("model", 6));
  EXPECT_FALSE(RootKey("model", 5) == RootKey("modem", 5));
  RecordName other = s.name;
  other.kind = RecordKind::kState;
  EXPECT_FALSE(KeyOf(other) == s.key);
  other = s.name;
  other.ids = std::span(s.ids).first(127);
  EXPECT_FALSE(KeyOf(other) == s.key);
}

}  // namespace
}  // namespace cachalot::diskcache
