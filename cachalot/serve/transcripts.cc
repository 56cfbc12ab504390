// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/transcripts.h"

#include <algorithm>
#include <utility>

namespace cachalot::serve {

Transcripts::Transcripts(std::shared_ptr<const tokenizer::Tokenizer> tokenizer, size_t max_bytes)
    : tokenizer_(std::move(tokenizer)), max_bytes_(max_bytes) {}

void Transcripts::Add(kvcache::CacheScope scope, std::string text, std::vector<uint32_t> ids) {
  const std::lock_guard lock(mutex_);
  const auto same = std::ranges::find_if(
      entries_, [&](const Entry& e) { return e.scope == scope && e.text == text; });
  if (same != entries_.end()) {
    bytes_ -= same->bytes();
    entries_.erase(same);
  }
  entries_.push_front({scope, std::move(text), std::move(ids)});
  bytes_ += entries_.front().bytes();
  while (bytes_ > max_bytes_) {
    bytes_ -= entries_.back().bytes();
    entries_.pop_back();
  }
}

std::vector<uint32_t> Transcripts::Encode(kvcache::CacheScope scope, std::string_view text) {
  std::vector<uint32_t> ids;
  size_t known = 0;
  {
    const std::lock_guard lock(mutex_);
    auto best = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      if (it->scope == scope && it->text.size() > known && text.starts_with(it->text)) {
        known = it->text.size();
        best = it;
      }
    }
    if (best != entries_.end()) {
      entries_.splice(entries_.begin(), entries_, best);
      ids = best->ids;
    }
  }
  std::vector<uint32_t> rest = tokenizer_->Encode(text.substr(known), /*parse_special=*/true);
  if (known > 0 && !rest.empty() && !tokenizer_->IsAdded(rest.front())) {
    return tokenizer_->Encode(text, /*parse_special=*/true);
  }
  ids.insert(ids.end(), rest.begin(), rest.end());
  return ids;
}

void Transcripts::Purge(kvcache::CacheScope scope) {
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [&](const Entry& entry) {
    if (entry.scope == scope) bytes_ -= entry.bytes();
    return entry.scope == scope;
  });
}

}  // namespace cachalot::serve
