// SPDX-License-Identifier: Apache-2.0
// The records of a store in memory: by key, as a tree, in the order of their last use.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "cachalot/diskcache/index.h"
#include "cachalot/diskcache/record.h"

namespace cachalot::diskcache {

// Thread-safety: none.
class Catalog {
 public:
  struct Entry {
    IndexRow row;
    std::vector<Key> children;      // blocks and states that stand on it
    std::list<Key>::iterator used;  // place in the order of use
  };

  void AddRoot(const IndexRoot& root);
  const IndexRoot* FindRoot(const Key& key) const;
  const std::unordered_map<Key, IndexRoot, KeyHash>& roots() const { return roots_; }
  int64_t next_root_id() const { return next_root_id_; }

  // Takes rows in any order, as the most recently used of each family comes; returns those that
  // stand on nothing.
  std::vector<IndexRow> Load(std::vector<IndexRow> rows);
  // As the most recently used. False if it is there already or what it stands on is not.
  bool Add(const IndexRow& row);
  const Entry* Find(const Key& key) const;
  // Blocks and states that stand on a root or block.
  std::span<const Key> ChildrenOf(const Key& key) const;

  // Notes a use of `key` and of all it stands on; a parent is always used after its children.
  void Touch(const Key& key, int64_t now_ms);
  void SetPinned(const Key& key, bool pinned);
  // Removes the record and all that stands on it; children come first in what is returned.
  std::vector<IndexRow> RemoveSubtree(const Key& key);
  // Removes the least recently used record that nothing stands on and nobody pinned.
  std::optional<IndexRow> EvictOldest();

  uint64_t bytes() const { return bytes_; }
  size_t size() const { return entries_.size(); }
  size_t num_states() const { return num_states_; }
  const std::unordered_map<Key, Entry, KeyHash>& entries() const { return entries_; }

 private:
  void RemoveLeaf(const Key& key);

  std::unordered_map<Key, Entry, KeyHash> entries_;
  std::unordered_map<Key, IndexRoot, KeyHash> roots_;
  std::unordered_map<Key, std::vector<Key>, KeyHash> root_children_;
  std::list<Key> order_;  // least recently used first
  uint64_t bytes_ = 0;
  size_t num_states_ = 0;
  int64_t next_root_id_ = 1;
};

}  // namespace cachalot::diskcache
