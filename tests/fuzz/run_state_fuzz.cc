// SPDX-License-Identifier: Apache-2.0
// Checkpoints of training runs from outside: refused, or loaded into a set of one tensor. Checksums
// are made to match first (see token_shard_fuzz.cc).
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "cachalot/io/checksum.h"
#include "cachalot/train/run_state.h"

namespace {

namespace train = cachalot::train;

void Require(bool condition) {
  if (!condition) std::abort();
}

// Lengths of the description and checksums as the format places them.
void MakeChecksumsMatch(std::string& bytes) {
  constexpr size_t kMetaBytes = 16, kBodyBytes = 24, kMetaSum = 32, kBodySum = 40, kHeaderSum = 56;
  constexpr size_t kHeader = 64;
  if (bytes.size() < kHeader) return;
  uint64_t meta = 0;
  std::memcpy(&meta, bytes.data() + kMetaBytes, sizeof(meta));
  meta = std::min<uint64_t>(meta, bytes.size() - kHeader);
  const uint64_t body = bytes.size() - kHeader - meta;
  const uint64_t meta_sum = cachalot::io::Checksum64(bytes.data() + kHeader, meta);
  const uint64_t body_sum = cachalot::io::Checksum64(bytes.data() + kHeader + meta, body);
  std::memcpy(bytes.data() + kMetaBytes, &meta, 8);
  std::memcpy(bytes.data() + kBodyBytes, &body, 8);
  std::memcpy(bytes.data() + kMetaSum, &meta_sum, 8);
  std::memcpy(bytes.data() + kBodySum, &body_sum, 8);
  const uint64_t header = cachalot::io::Checksum64(bytes.data(), kHeaderSum);
  std::memcpy(bytes.data() + kHeaderSum, &header, 8);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  train::ParameterSet set;
  set.parameters.push_back(
      {"head.weight", 2, 3, cachalot::AlignedBuffer<float>(6), cachalot::AlignedBuffer<float>(6)});
  train::Optimizer optimizer(cachalot::model::Config(), set, {});
  std::string bytes(reinterpret_cast<const char*>(data), size);
  MakeChecksumsMatch(bytes);
  const auto state = train::ParseRun("fuzz", reinterpret_cast<const uint8_t*>(bytes.data()),
                                     bytes.size(), set, optimizer);
  if (!state.ok()) Require(state.error().message.starts_with("fuzz"));
  return 0;
}
