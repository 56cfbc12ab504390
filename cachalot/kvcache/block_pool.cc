// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"
#include "cachalot/kvcache/kv_cache.h"

namespace cachalot::kvcache {

Result<std::unique_ptr<BlockPool>> BlockPool::Create(const KvSpec& spec, size_t num_blocks) {
  CACHALOT_RETURN_IF_ERROR(spec.Validate());
  size_t bytes = 0;
  if (num_blocks > UINT32_MAX || __builtin_mul_overflow(spec.block_bytes(), num_blocks, &bytes)) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(num_blocks, " KV blocks of ", spec.block_bytes(), " bytes are too many")};
  }
  std::unique_ptr<BlockPool> pool(new BlockPool());
  pool->spec_ = spec;
  if (bytes > 0) {
    // Address space only: a page becomes memory when an entry is first written to it.
    void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
      return Error{ErrorCode::kResourceExhausted,
                   StrCat("KV cache of ", num_blocks, " blocks (", bytes,
                          " bytes): ", std::strerror(errno), "; lower --max-context")};
    }
    pool->base_ = static_cast<uint8_t*>(base);
    pool->mapped_bytes_ = bytes;
  }
  uint8_t* slab = pool->base_;
  for (size_t l = 0; l < spec.compress_ratios.size(); ++l) {
    pool->slabs_.push_back(slab);
    slab += num_blocks * spec.layer_block_bytes(l);
  }
  pool->ref_counts_.assign(num_blocks, 0);
  // Handed out from the back: low ids first, so that memory in use stays dense.
  for (size_t i = num_blocks; i-- > 0;) pool->free_.push_back(static_cast<BlockId>(i));
  return pool;
}

BlockPool::~BlockPool() {
  if (base_ != nullptr) munmap(base_, mapped_bytes_);
}

Result<BlockId> BlockPool::Allocate() {
  if (free_.empty()) {
    return Error{ErrorCode::kResourceExhausted, StrCat("all ", num_blocks(), " KV blocks of ",
                                                       kBlockTokens, " tokens are in use")};
  }
  const BlockId id = free_.back();
  free_.pop_back();
  ref_counts_[static_cast<size_t>(id)] = 1;
  return id;
}

void BlockPool::AddRef(BlockId id) {
  CACHALOT_CHECK(static_cast<size_t>(id) < num_blocks());
  CACHALOT_CHECK(ref_counts_[static_cast<size_t>(id)] > 0);
  ++ref_counts_[static_cast<size_t>(id)];
}

void BlockPool::Release(BlockId id) {
  CACHALOT_CHECK(static_cast<size_t>(id) < num_blocks());
  uint32_t& count = ref_counts_[static_cast<size_t>(id)];
  CACHALOT_CHECK(count > 0);
  if (--count == 0) free_.push_back(id);
}

}  // namespace cachalot::kvcache
