// SPDX-License-Identifier: Apache-2.0
// The bytes of all tokens as a tree, so that a beginning they share is walked once, and what
// follows a dead end not at all.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot::grammar {

// Immutable, so thread-safe.
class Vocabulary {
 public:
  // A byte after those of the nodes above. Nodes are in preorder, so nodes[i + 1] .. nodes[end - 1]
  // are below nodes[i].
  struct Node {
    uint32_t end = 0;
    uint32_t ids_begin = 0, ids_end = 0;  // in ids(): the tokens that end here
    uint16_t depth = 1;                   // bytes up to and with this one
    uint8_t byte = 0;
  };

  // All ordinary tokens below `vocab_size` (0: the tokenizer's), and of the added ones those
  // listed: markers that a grammar spells.
  static std::shared_ptr<const Vocabulary> Create(const tokenizer::Tokenizer& tokenizer,
                                                  uint32_t vocab_size,
                                                  const std::vector<uint32_t>& added);

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<uint32_t>& ids() const { return ids_; }  // by their bytes
  uint32_t max_depth() const { return max_depth_; }
  uint32_t size() const { return size_; }  // ids are below
  // Bytes of a listed token; empty for any other.
  const std::string& bytes(uint32_t id) const { return by_id_[id]; }

 private:
  void AddNodes();

  std::vector<Node> nodes_;
  std::vector<uint32_t> ids_;
  std::vector<std::string> by_id_;
  uint32_t size_ = 0;
  uint32_t max_depth_ = 0;
};

}  // namespace cachalot::grammar
