// SPDX-License-Identifier: Apache-2.0
#include "cachalot/io/checksum.h"

#include <xxhash.h>

#include <new>

namespace cachalot::io {

uint64_t Checksum64(const void* data, size_t size) { return XXH3_64bits(data, size); }

Hash128 HashBytes(const void* data, size_t size) {
  const XXH128_hash_t hash = XXH3_128bits(data, size);
  return {.low = hash.low64, .high = hash.high64};
}

Checksum::Checksum() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_));
}

Checksum::~Checksum() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }

void Checksum::Update(const void* data, size_t size) {
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state_), data, size);
}

uint64_t Checksum::Digest() const {
  return XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state_));
}

}  // namespace cachalot::io
