// SPDX-License-Identifier: Apache-2.0
// The ids behind texts that were answered before. The model's own ids of an answer need not be
// those its text encodes to; going on with them keeps the remembered prefix. [chat.md 9]
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/kvcache/prefix_cache.h"
#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot::serve {

// Thread-safe.
class Transcripts {
 public:
  // Keeps at most `max_bytes` of texts and ids, the least recently used go first.
  Transcripts(std::shared_ptr<const tokenizer::Tokenizer> tokenizer, size_t max_bytes);

  // `text` is what `ids` spell.
  void Add(kvcache::CacheScope scope, std::string text, std::vector<uint32_t> ids);

  // The ids of `text`, markers parsed: those of the longest kept beginning after which a marker
  // follows (a cut elsewhere could change how the rest is encoded), then the encoded rest.
  std::vector<uint32_t> Encode(kvcache::CacheScope scope, std::string_view text);

  void Purge(kvcache::CacheScope scope);

 private:
  struct Entry {
    kvcache::CacheScope scope;
    std::string text;
    std::vector<uint32_t> ids;
    size_t bytes() const { return text.size() + ids.size() * sizeof(ids[0]); }
  };

  std::shared_ptr<const tokenizer::Tokenizer> tokenizer_;
  size_t max_bytes_;
  std::mutex mutex_;
  size_t bytes_ = 0;
  std::list<Entry> entries_;  // most recently used first
};

}  // namespace cachalot::serve
