// SPDX-License-Identifier: Apache-2.0
#include "cachalot/diskcache/catalog.h"

#include <algorithm>
#include <tuple>

namespace cachalot::diskcache {

void Catalog::AddRoot(const IndexRoot& root) {
  roots_.emplace(root.key, root);
  next_root_id_ = std::max(next_root_id_, root.id + 1);
}

const IndexRoot* Catalog::FindRoot(const Key& key) const {
  const auto found = roots_.find(key);
  return found == roots_.end() ? nullptr : &found->second;
}

std::vector<IndexRow> Catalog::Load(std::vector<IndexRow> rows) {
  // Parents first: a block ends after its parent does, a state not before it.
  std::ranges::sort(rows, {},
                    [](const IndexRow& row) { return std::tuple(row.position, row.kind); });
  std::vector<IndexRow> rejected;
  for (const IndexRow& row : rows) {
    if (!Add(row)) rejected.push_back(row);
  }
  // Uses may have been lost for some of a family: what is stood on is as recent as its children.
  for (auto it = rows.rbegin(); it != rows.rend(); ++it) {
    const auto child = entries_.find(it->key);
    const auto parent = entries_.find(it->parent);
    if (child == entries_.end() || parent == entries_.end()) continue;
    IndexRow& row = parent->second.row;
    row.used_ms = std::max(row.used_ms, child->second.row.used_ms);
  }
  order_.sort([this](const Key& a, const Key& b) {
    const IndexRow& x = entries_.at(a).row;
    const IndexRow& y = entries_.at(b).row;
    return std::tuple(x.used_ms, y.position, y.kind) < std::tuple(y.used_ms, x.position, x.kind);
  });
  return rejected;
}

bool Catalog::Add(const IndexRow& row) {
  if (entries_.contains(row.key)) return false;
  const auto parent = entries_.find(row.parent);
  if (parent != entries_.end()) {
    if (parent->second.row.kind != RecordKind::kBlock) return false;
    parent->second.children.push_back(row.key);
  } else {
    if (!roots_.contains(row.parent)) return false;
    root_children_[row.parent].push_back(row.key);
  }
  const auto used = order_.insert(order_.end(), row.key);
  entries_.emplace(row.key, Entry{.row = row, .children = {}, .used = used});
  bytes_ += row.bytes;
  if (row.kind == RecordKind::kState) ++num_states_;
  return true;
}

const Catalog::Entry* Catalog::Find(const Key& key) const {
  const auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : &found->second;
}

std::span<const Key> Catalog::ChildrenOf(const Key& key) const {
  if (const Entry* entry = Find(key)) return entry->children;
  const auto root = root_children_.find(key);
  return root == root_children_.end() ? std::span<const Key>() : root->second;
}

void Catalog::Touch(const Key& key, int64_t now_ms) {
  for (auto it = entries_.find(key); it != entries_.end();
       it = entries_.find(it->second.row.parent)) {
    Entry& entry = it->second;
    entry.row.used_ms = std::max(entry.row.used_ms, now_ms);
    ++entry.row.hits;
    order_.splice(order_.end(), order_, entry.used);
  }
}

void Catalog::SetPinned(const Key& key, bool pinned) {
  const auto found = entries_.find(key);
  if (found != entries_.end()) found->second.row.pinned = pinned;
}

std::vector<IndexRow> Catalog::RemoveSubtree(const Key& key) {
  // Breadth first, then backwards: whoever stands on another is removed before it. No recursion: a
  // chain of a million tokens is 8,192 deep.
  std::vector<Key> keys;
  if (entries_.contains(key)) keys.push_back(key);
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto& children = entries_.at(keys[i]).children;
    keys.insert(keys.end(), children.begin(), children.end());
  }
  std::vector<IndexRow> removed;
  for (auto it = keys.rbegin(); it != keys.rend(); ++it) {
    removed.push_back(entries_.at(*it).row);
    RemoveLeaf(*it);
  }
  return removed;
}

std::optional<IndexRow> Catalog::EvictOldest() {
  for (const Key& key : order_) {
    const Entry& entry = entries_.at(key);
    if (entry.row.pinned || !entry.children.empty()) continue;
    const IndexRow row = entry.row;
    RemoveLeaf(row.key);
    return row;
  }
  return std::nullopt;
}

void Catalog::RemoveLeaf(const Key& key) {
  const auto found = entries_.find(key);
  const IndexRow row = found->second.row;
  const auto parent = entries_.find(row.parent);
  std::erase(parent != entries_.end() ? parent->second.children : root_children_[row.parent],
             row.key);
  bytes_ -= row.bytes;
  if (row.kind == RecordKind::kState) --num_states_;
  order_.erase(found->second.used);
  entries_.erase(found);
}

}  // namespace cachalot::diskcache
