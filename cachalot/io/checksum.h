// SPDX-License-Identifier: Apache-2.0
// Checksums of own files: against accidents, not against forgers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cachalot::io {

// XXH3-64 of the bytes, at the speed of memory. The value is part of file formats.
uint64_t Checksum64(const void* data, size_t size);

// XXH3-128: a name for bytes. Not proof against forgers: who finds bytes by it compares them too.
struct Hash128 {
  uint64_t low = 0;
  uint64_t high = 0;
  friend bool operator==(const Hash128&, const Hash128&) = default;
};
Hash128 HashBytes(const void* data, size_t size);

// Checksum64 over pieces: Update in order, then Digest.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  Checksum(const Checksum&) = delete;
  Checksum& operator=(const Checksum&) = delete;
  void Update(const void* data, size_t size);
  uint64_t Digest() const;

 private:
  void* state_;
};

}  // namespace cachalot::io
