// SPDX-License-Identifier: Apache-2.0
// Sizes that follow from a model's shape. [design.md 4, Blocks]
#include "cachalot/base/strings.h"
#include "cachalot/kvcache/kv_cache.h"

namespace cachalot::kvcache {
namespace {

constexpr uint32_t kCsaRatio = 4;
constexpr uint32_t kHcaRatio = 128;

// Far above any model and far below what overflows a size.
constexpr uint32_t kMaxDim = 1u << 16;
constexpr uint32_t kMaxWindow = 1u << 20;

Error Invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

}  // namespace

Status KvSpec::Validate() const {
  if (rope_dim == 0 || rope_dim % 2 != 0 || rope_dim >= head_dim) {
    return Invalid(StrCat("rope_dim ", rope_dim, " must be even and below head_dim ", head_dim));
  }
  if (head_dim > kMaxDim || index_head_dim > kMaxDim) {
    return Invalid(StrCat("head_dim ", head_dim, " or index_head_dim ", index_head_dim,
                          ": more than ", kMaxDim));
  }
  if (format == KvFormat::kNative && (head_dim - rope_dim) % kKvScaleBlock != 0) {
    return Invalid(StrCat("head_dim - rope_dim = ", head_dim - rope_dim, " is no multiple of ",
                          kKvScaleBlock, ", the block of a KV scale"));
  }
  if (format == KvFormat::kNative && index_head_dim % kKeyScaleBlock != 0) {
    return Invalid(StrCat("index_head_dim ", index_head_dim, " is no multiple of ", kKeyScaleBlock,
                          ", the block of a key scale"));
  }
  if (sliding_window == 0 || sliding_window > kMaxWindow) {
    return Invalid(StrCat("sliding_window ", sliding_window, " is not in 1 to ", kMaxWindow));
  }
  for (uint32_t ratio : compress_ratios) {
    if (ratio != 0 && ratio != kCsaRatio && ratio != kHcaRatio) {
      return Invalid(StrCat("compress ratio ", ratio, " is none of 0, 4, 128"));
    }
  }
  return {};
}

KvLayout KvSpec::window_layout() const {
  return {.format = format, .head_dim = head_dim, .rope_dim = rope_dim, .key_dim = 0};
}

KvLayout KvSpec::compressed_layout(size_t layer) const {
  KvLayout layout = window_layout();
  if (compress_ratios[layer] == kCsaRatio) layout.key_dim = index_head_dim;
  return layout;
}

size_t KvSpec::layer_block_bytes(size_t layer) const {
  const uint32_t ratio = compress_ratios[layer];
  return ratio == 0 ? 0 : kBlockTokens / ratio * compressed_layout(layer).row_bytes();
}

size_t KvSpec::block_bytes() const {
  size_t bytes = 0;
  for (size_t l = 0; l < compress_ratios.size(); ++l) bytes += layer_block_bytes(l);
  return bytes;
}

}  // namespace cachalot::kvcache
