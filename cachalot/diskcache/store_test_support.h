// SPDX-License-Identifier: Apache-2.0
// For tests: texts, payloads that follow from the name, and reading a prefix back.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachalot/base/rng.h"
#include "cachalot/diskcache/reading.h"
#include "cachalot/diskcache/store.h"

namespace cachalot::diskcache {

using Tokens = std::vector<uint32_t>;

// Texts of one family share what comes before `fork`.
inline Tokens Text(uint64_t family, uint64_t member, size_t fork, size_t length) {
  Tokens tokens;
  for (size_t i = 0; i < length; ++i) {
    tokens.push_back(
        static_cast<uint32_t>(CounterRandom(family, i < fork ? 0 : member + 1, i) % 100000));
  }
  return tokens;
}

// What a record of this key holds: any mixture of two records shows.
inline std::vector<uint8_t> PayloadOf(const Key& key, size_t bytes) {
  std::vector<uint8_t> payload(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    payload[i] = static_cast<uint8_t>(CounterRandom(key.low, key.high, i / 8) >> (8 * (i % 8)));
  }
  return payload;
}

inline constexpr size_t kBlockPayload = 1500;
inline constexpr size_t kStatePayload = 700;

// Puts all blocks of `tokens` and a state at its end; the keys that were taken.
inline std::vector<Key> PutText(Store& store, const Key& root, const Tokens& tokens) {
  std::vector<Key> keys;
  Key parent = root;
  const auto put = [&](RecordKind kind, size_t begin, size_t end, size_t payload) {
    const RecordName name{.kind = kind,
                          .parent = parent,
                          .position = static_cast<uint32_t>(end),
                          .ids = std::span(tokens).subspan(begin, end - begin)};
    const Key key = KeyOf(name);
    if (!store.Put(name, PayloadOf(key, payload))) return false;
    keys.push_back(key);
    if (kind == RecordKind::kBlock) parent = key;
    return true;
  };
  size_t begin = 0;
  for (; begin + kBlockTokens <= tokens.size(); begin += kBlockTokens) {
    if (!put(RecordKind::kBlock, begin, begin + kBlockTokens, kBlockPayload)) return keys;
  }
  put(RecordKind::kState, begin, tokens.size(), kStatePayload);
  return keys;
}

struct ReadBack {
  StoredPath path;
  bool failed = false;  // an error on the way: a miss
  bool wrong = false;   // bytes that are not what was stored: never
};

inline ReadBack ReadText(Store& store, const Key& root, const Tokens& tokens) {
  ReadBack result{.path = store.Find(root, tokens)};
  std::vector<FoundRecord> records = result.path.blocks;
  if (result.path.state) records.push_back(*result.path.state);
  size_t delivered = 0;
  auto reading = store.Read(records, tokens, [&](size_t i, std::span<const uint8_t> payload) {
    const auto expected = PayloadOf(records[i].key, payload.size());
    const size_t size = records[i].kind == RecordKind::kBlock ? kBlockPayload : kStatePayload;
    if (payload.size() != size || !std::equal(payload.begin(), payload.end(), expected.begin())) {
      result.wrong = true;
    }
    ++delivered;
    return true;
  });
  const auto done = reading.ok() ? (*reading)->Poll(true) : Result<bool>(reading.error());
  result.failed = !done.ok();
  if (done.ok() && delivered != records.size()) result.wrong = true;
  return result;
}

inline std::unique_ptr<Store> OpenStore(std::unique_ptr<Storage> storage,
                                        StoreOptions options = {}) {
  auto store = Store::Open(std::move(storage), std::move(options));
  EXPECT_TRUE(store.ok()) << store.error().message;
  return store.ok() ? std::move(store).value() : nullptr;
}

}  // namespace cachalot::diskcache
