// SPDX-License-Identifier: Apache-2.0
// Token shards from outside: refused, or one in which every sample and token can be read. The
// checksums are made to match first, since no mutation finds them by chance and a forger would
// write them.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "cachalot/io/checksum.h"
#include "cachalot/train/token_shard.h"

namespace {
void Require(bool condition) {
  if (!condition) std::abort();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kBodyChecksum = 48, kHeaderChecksum = 56, kHeader = 64;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (size >= kHeader) {
    const uint64_t body = cachalot::io::Checksum64(bytes.data() + kHeader, size - kHeader);
    std::memcpy(bytes.data() + kBodyChecksum, &body, sizeof(body));
    const uint64_t header = cachalot::io::Checksum64(bytes.data(), kHeaderChecksum);
    std::memcpy(bytes.data() + kHeaderChecksum, &header, sizeof(header));
  }
  const auto shard = cachalot::train::TokenShard::Parse(
      "fuzz", reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (!shard.ok()) {
    Require(shard.error().message.starts_with("fuzz"));
    return 0;
  }
  uint64_t tokens = 0;
  for (uint64_t s = 0; s < shard->num_samples(); ++s) {
    for (uint64_t i = shard->begin(s); i < shard->begin(s + 1); ++i, ++tokens) {
      Require(shard->token(i) < shard->vocab_size());
      (void)shard->is_target(i);
    }
  }
  Require(tokens == shard->num_tokens());
  return 0;
}
