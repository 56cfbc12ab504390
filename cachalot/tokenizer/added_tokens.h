// SPDX-License-Identifier: Apache-2.0
// Finds added tokens in text: leftmost match, longest at a position. [chat.md 2.2 step 1]
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace cachalot::tokenizer {

// A trie over bytes. Scanning costs O(text * longest token) at worst; kMaxAddedTokenBytes bounds
// it.
inline constexpr size_t kMaxAddedTokenBytes = 256;

class AddedTokenMatcher {
 public:
  struct Match {
    size_t begin, size;
    uint32_t id;
  };

  // Pre: 0 < content.size() <= kMaxAddedTokenBytes. A repeated content keeps the last id.
  void Add(std::string_view content, uint32_t id);
  // The first match at or after `from`.
  std::optional<Match> Find(std::string_view text, size_t from) const;
  bool empty() const { return nodes_.size() == 1; }

 private:
  static constexpr uint32_t kNoId = ~uint32_t{0};
  struct Node {
    std::vector<std::pair<char, uint32_t>> children;  // few: looked through in order
    uint32_t id = kNoId;
  };

  // Index of the child, 0 (the root) if there is none.
  uint32_t Child(uint32_t node, char c) const;
  std::optional<Match> MatchAt(std::string_view text, size_t begin) const;

  std::vector<Node> nodes_{1};
  std::array<bool, 256> starts_{};  // most bytes of text begin no token: one lookup each
};

}  // namespace cachalot::tokenizer
