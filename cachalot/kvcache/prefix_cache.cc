// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kvcache/prefix_cache.h"

#include <algorithm>
#include <cstring>

#include "cachalot/base/check.h"

namespace cachalot::kvcache {
namespace {

size_t CommonPrefix(std::span<const uint32_t> a, std::span<const uint32_t> b) {
  const auto [end, unused] = std::ranges::mismatch(a, b);
  return static_cast<size_t>(end - a.begin());
}

}  // namespace

// 128 tokens and the block that holds their compressed entries; a root has neither.
struct PrefixCache::Node {
  Node* parent = nullptr;
  uint64_t scope = 0;
  uint32_t depth = 0;            // complete blocks up to and with this one
  std::vector<uint32_t> tokens;  // kBlockTokens, none in a root
  BlockId block{};
  // Few: texts that begin alike share their first blocks. Compared one by one; the first tokens
  // that differ decide.
  std::vector<std::unique_ptr<Node>> children;
  std::vector<Checkpoint*> checkpoints;  // owned by checkpoints_
};

struct PrefixCache::Checkpoint {
  Node* node = nullptr;        // the complete blocks before it
  std::vector<uint32_t> tail;  // tokens after those, < kBlockTokens
  BlockId partial{};           // our own copy of the block they stand in, if there are any
  uint32_t rewind_floor = 0;   // the sequence's
  std::vector<uint8_t> state;
  CheckpointList::iterator self;

  uint32_t position() const {
    return node->depth * kBlockTokens + static_cast<uint32_t>(tail.size());
  }
};

PrefixCache::PrefixCache(BlockPool& pool, size_t max_bytes) : pool_(pool), max_bytes_(max_bytes) {}
PrefixCache::~PrefixCache() {
  while (!checkpoints_.empty()) Drop(*checkpoints_.back());
}

uint32_t PrefixCache::Restore(CacheScope scope, std::span<const uint32_t> tokens,
                              Sequence& sequence) {
  sequence.Reset();
  const Match best = FindBest(scope, tokens);
  if (best.checkpoint == nullptr || !RestoreFrom(*best.checkpoint, best.position, sequence)) {
    ++stats_.misses;
    return 0;
  }
  ++stats_.hits;
  return best.position;
}

// The furthest position from which a checkpoint can go on with `tokens`. At least one token is left
// to feed: its logits are wanted.
PrefixCache::Match PrefixCache::FindBest(CacheScope scope, std::span<const uint32_t> tokens) const {
  Match best;
  const auto root = roots_.find(static_cast<uint64_t>(scope));
  if (root == roots_.end() || tokens.empty()) return best;
  // `common` tokens up to and with this node's block agree.
  const auto consider = [&](const Node& node, size_t common) {
    for (Checkpoint* checkpoint : node.checkpoints) {
      size_t agreed = common;
      if (agreed == size_t{node.depth} * kBlockTokens) {
        agreed += CommonPrefix(checkpoint->tail, tokens.subspan(agreed));
      }
      const auto position = static_cast<uint32_t>(std::min(agreed, tokens.size() - 1));
      if (checkpoint->position() - position <= kMaxRewind && position > best.position &&
          position >= checkpoint->rewind_floor) {
        best = {.checkpoint = checkpoint, .position = position};
      }
    }
  };
  const Node* node = root->second.get();
  while (node != nullptr) {
    const size_t begin = size_t{node->depth} * kBlockTokens;
    consider(*node, begin);
    const Node* next = nullptr;
    for (const auto& child : node->children) {
      const size_t common = CommonPrefix(child->tokens, tokens.subspan(begin));
      if (common == kBlockTokens) {
        next = child.get();
      } else if (common + kMaxRewind >= kBlockTokens) {
        consider(*child, begin + common);  // a short rewind leads back into this block
      }
    }
    node = next;
  }
  return best;
}

bool PrefixCache::RestoreFrom(Checkpoint& checkpoint, uint32_t position, Sequence& sequence) {
  Touch(checkpoint);
  std::vector<BlockId> blocks(checkpoint.node->depth);
  for (const Node* node = checkpoint.node; node->parent != nullptr; node = node->parent) {
    blocks[node->depth - 1] = node->block;
  }
  if (!checkpoint.tail.empty()) blocks.push_back(checkpoint.partial);
  // From the block of `position` on, the sequence writes: those become its own.
  const size_t shared = position / kBlockTokens;
  std::vector<BlockId> copies;
  bool ok = true;
  for (size_t i = shared; i < blocks.size() && ok; ++i) {
    const auto copy = CopyBlock(blocks[i]);
    ok = copy.ok();
    if (ok) copies.push_back(blocks[i] = *copy);
  }
  ok = ok && sequence.RestoreState(checkpoint.state, blocks).ok();
  for (const BlockId copy : copies) pool_.Release(copy);  // the sequence has its own reference
  if (ok && !sequence.Rewind(checkpoint.position() - position).ok()) ok = false;
  if (!ok) sequence.Reset();
  return ok;
}

bool PrefixCache::Save(CacheScope scope, std::span<const uint32_t> tokens,
                       const Sequence& sequence) {
  CACHALOT_CHECK(tokens.size() == sequence.position());
  // What was rewound is still in the rings: such a state could be rewound less than others.
  if (tokens.empty() || sequence.furthest_position() != sequence.position()) return false;
  if (sequence.position() < sequence.replay_end()) return false;
  const size_t complete = tokens.size() / kBlockTokens;
  const auto tail = tokens.subspan(complete * kBlockTokens);
  const size_t blocks = complete + (tail.empty() ? 0 : 1);
  if (blocks * pool_.spec().block_bytes() + pool_.spec().state_bytes() > max_bytes_) return false;

  Node& node = PathTo(scope, tokens, sequence.blocks());
  for (Checkpoint* known : node.checkpoints) {
    if (std::ranges::equal(known->tail, tail)) {
      Touch(*known);
      return true;
    }
  }
  checkpoints_.push_front(std::make_unique<Checkpoint>());
  Checkpoint& added = *checkpoints_.front();
  added.self = checkpoints_.begin();
  added.node = &node;
  node.checkpoints.push_back(&added);
  added.rewind_floor = sequence.rewind_floor();
  sequence.SaveState(added.state);
  stats_.bytes += added.state.size();
  ++stats_.checkpoints;
  if (!tail.empty()) {
    const auto copy = CopyBlock(sequence.blocks()[complete]);
    if (!copy.ok()) {
      Drop(added);
      return false;
    }
    added.tail.assign(tail.begin(), tail.end());
    added.partial = *copy;
    stats_.bytes += pool_.spec().block_bytes();
  }
  Evict();
  return !checkpoints_.empty();  // what was added would go last
}

// The node of the last complete block of `tokens`; missing ones are added with a reference on the
// sequence's blocks.
PrefixCache::Node& PrefixCache::PathTo(CacheScope scope, std::span<const uint32_t> tokens,
                                       std::span<const BlockId> blocks) {
  auto& root = roots_[static_cast<uint64_t>(scope)];
  if (root == nullptr) root = std::make_unique<Node>();
  root->scope = static_cast<uint64_t>(scope);
  Node* node = root.get();
  for (; tokens.size() >= kBlockTokens; tokens = tokens.subspan(kBlockTokens)) {
    const auto block_tokens = tokens.first(kBlockTokens);
    const auto known = std::ranges::find_if(node->children, [&](const auto& child) {
      return std::ranges::equal(child->tokens, block_tokens);
    });
    if (known != node->children.end()) {
      node = known->get();
      continue;
    }
    auto added = std::make_unique<Node>();
    added->parent = node;
    added->scope = node->scope;
    added->depth = node->depth + 1;
    added->tokens.assign(block_tokens.begin(), block_tokens.end());
    added->block = blocks[node->depth];
    pool_.AddRef(added->block);
    stats_.bytes += pool_.spec().block_bytes();
    node->children.push_back(std::move(added));
    node = node->children.back().get();
  }
  return *node;
}

// A block with the bytes of `from`, for which old checkpoints make room; the newest one stays.
Result<BlockId> PrefixCache::CopyBlock(BlockId from) {
  while (pool_.num_free() == 0 && checkpoints_.size() > 1) DropOldest();
  CACHALOT_TRY(const BlockId copy, pool_.Allocate());
  const KvSpec& spec = pool_.spec();
  for (size_t layer = 0; layer < spec.compress_ratios.size(); ++layer) {
    const size_t bytes = spec.layer_block_bytes(layer);
    uint8_t* slab = pool_.slab(layer);
    if (bytes > 0) {
      std::memcpy(slab + static_cast<size_t>(copy) * bytes,
                  slab + static_cast<size_t>(from) * bytes, bytes);
    }
  }
  return copy;
}

void PrefixCache::SetMaxBytes(size_t max_bytes) {
  max_bytes_ = max_bytes;
  Evict();
}

void PrefixCache::Evict() {
  while (stats_.bytes > max_bytes_ && !checkpoints_.empty()) DropOldest();
}

void PrefixCache::DropOldest() {
  Drop(*checkpoints_.back());
  ++stats_.evicted;
}

void PrefixCache::Touch(Checkpoint& checkpoint) {
  checkpoints_.splice(checkpoints_.begin(), checkpoints_, checkpoint.self);
}

void PrefixCache::Drop(Checkpoint& checkpoint) {
  if (!checkpoint.tail.empty()) {
    pool_.Release(checkpoint.partial);
    stats_.bytes -= pool_.spec().block_bytes();
  }
  stats_.bytes -= checkpoint.state.size();
  --stats_.checkpoints;
  Node* node = checkpoint.node;
  std::erase(node->checkpoints, &checkpoint);
  checkpoints_.erase(checkpoint.self);
  DropUnused(node);
}

// Blocks that no checkpoint stands on any more cannot be resumed from.
void PrefixCache::DropUnused(Node* node) {
  while (node->parent != nullptr && node->children.empty() && node->checkpoints.empty()) {
    pool_.Release(node->block);
    stats_.bytes -= pool_.spec().block_bytes();
    Node* parent = node->parent;
    std::erase_if(parent->children, [node](const auto& child) { return child.get() == node; });
    node = parent;
  }
  if (node->parent == nullptr && node->children.empty() && node->checkpoints.empty()) {
    roots_.erase(node->scope);
  }
}

void PrefixCache::Purge(CacheScope scope) {
  for (auto it = checkpoints_.begin(); it != checkpoints_.end();) {
    Checkpoint& checkpoint = **it++;
    if (checkpoint.node->scope == static_cast<uint64_t>(scope)) Drop(checkpoint);
  }
}

}  // namespace cachalot::kvcache
