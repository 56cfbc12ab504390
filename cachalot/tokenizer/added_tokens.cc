// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/added_tokens.h"

#include "cachalot/base/check.h"

namespace cachalot::tokenizer {

uint32_t AddedTokenMatcher::Child(uint32_t node, char c) const {
  for (const auto& [byte, child] : nodes_[node].children) {
    if (byte == c) return child;
  }
  return 0;
}

void AddedTokenMatcher::Add(std::string_view content, uint32_t id) {
  CACHALOT_CHECK(!content.empty() && content.size() <= kMaxAddedTokenBytes);
  starts_[static_cast<uint8_t>(content[0])] = true;
  uint32_t node = 0;
  for (const char c : content) {
    uint32_t child = Child(node, c);
    if (child == 0) {
      child = static_cast<uint32_t>(nodes_.size());
      nodes_.emplace_back();
      nodes_[node].children.emplace_back(c, child);
    }
    node = child;
  }
  nodes_[node].id = id;
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::MatchAt(std::string_view text,
                                                                   size_t begin) const {
  std::optional<Match> longest;
  uint32_t node = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    node = Child(node, text[i]);
    if (node == 0) break;
    if (nodes_[node].id != kNoId) longest = Match{begin, i + 1 - begin, nodes_[node].id};
  }
  return longest;
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::Find(std::string_view text,
                                                                size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<uint8_t>(text[begin])]) continue;
    if (const auto match = MatchAt(text, begin)) return match;
  }
  return std::nullopt;
}

}  // namespace cachalot::tokenizer
