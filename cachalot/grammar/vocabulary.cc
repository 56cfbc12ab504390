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
    vocabulary->by_id_[id] = bytes;
    vocabulary->tokens_.push_back({.id = id, .bytes = bytes});
  }
  std::ranges::sort(vocabulary->tokens_, {}, &Token::bytes);
  for (size_t i = 1; i < vocabulary->tokens_.size(); ++i) {
    const std::string& before = vocabulary->tokens_[i - 1].bytes;
    Token& token = vocabulary->tokens_[i];
    const auto [end, unused] = std::ranges::mismatch(token.bytes, before);
    token.common = static_cast<uint32_t>(end - token.bytes.begin());
  }
  return vocabulary;
}

}  // namespace cachalot::grammar
