// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/vocabulary.h"

#include <algorithm>

namespace cachalot::grammar {

std::shared_ptr<const Vocabulary> Vocabulary::Create(const tokenizer::Tokenizer& tokenizer,
                                                     uint32_t vocab_size,
                                                     const std::vector<uint32_t>& added) {
  auto vocabulary = std::make_shared<Vocabulary>();
  vocabulary->size_ = vocab_size > 0 ? vocab_size : tokenizer.vocab_size();
  vocabulary->by_id_.resize(vocabulary->size_);
  for (uint32_t id = 0; id < std::min(vocabulary->size_, tokenizer.vocab_size()); ++id) {
    if (tokenizer.IsAdded(id) && std::ranges::find(added, id) == added.end()) continue;
    const std::string bytes(tokenizer.TokenBytes(id));
    if (bytes.empty()) continue;
    if (bytes.size() > UINT16_MAX) continue;  // no such token is ever wanted
    vocabulary->by_id_[id] = bytes;
    vocabulary->ids_.push_back(id);
  }
  std::ranges::stable_sort(vocabulary->ids_, {}, [&](uint32_t id) -> const std::string& {
    return vocabulary->by_id_[id];
  });
  vocabulary->AddNodes();
  return vocabulary;
}

// In the order of their bytes, a token's nodes are those it shares with the one before it and then
// new ones, which end those of the other tokens below the fork.
void Vocabulary::AddNodes() {
  std::vector<uint32_t> path;  // nodes from the root to the last token's end
  std::string_view before;
  const auto close = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back()) {
      nodes_[path.back()].end = static_cast<uint32_t>(nodes_.size());
    }
  };
  for (uint32_t i = 0; i < ids_.size(); ++i) {
    const std::string_view bytes = by_id_[ids_[i]];
    const auto fork = std::ranges::mismatch(bytes, before).in1 - bytes.begin();
    close(static_cast<size_t>(fork));
    for (size_t at = path.size(); at < bytes.size(); ++at) {
      path.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({.ids_begin = i,
                        .ids_end = i,
                        .depth = static_cast<uint16_t>(at + 1),
                        .byte = static_cast<uint8_t>(bytes[at])});
    }
    nodes_[path.back()].ids_end = i + 1;
    max_depth_ = std::max(max_depth_, static_cast<uint32_t>(bytes.size()));
    before = bytes;
  }
  close(0);
}

}  // namespace cachalot::grammar
