// SPDX-License-Identifier: Apache-2.0
// What the model wrote for the calls it made. Another spelling of the same call (spaces, the order
// of parameters) would lose the remembered prefix and show the model words it never said, so a call
// that comes back unchanged is shown to it as it wrote it. [chat.md 9]
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cachalot/chat/messages.h"
#include "cachalot/kvcache/prefix_cache.h"

namespace cachalot::serve {

// Thread-safe.
class CallTexts {
 public:
  // Keeps at most `max_bytes` of texts and calls, the least recently used go first.
  explicit CallTexts(size_t max_bytes) : max_bytes_(max_bytes) {}

  // `text`: the model's own of all `calls` of one message. Nothing is kept without calls or text.
  void Add(kvcache::CacheScope scope, std::vector<chat::ToolCall> calls, std::string text);

  // Sets Message::calls_text where the message's calls are those of an answer of this scope: the
  // same ids in the same order, names, and arguments that are the same JSON (keys in order).
  void Replay(kvcache::CacheScope scope, std::vector<chat::Message>& messages);

  void Purge(kvcache::CacheScope scope);

 private:
  struct Entry {
    kvcache::CacheScope scope;
    std::vector<chat::ToolCall> calls;  // arguments in one spelling
    std::string text;
    size_t bytes() const;
  };
  using Entries = std::list<Entry>;

  void Erase(Entries::iterator entry);

  size_t max_bytes_;
  std::mutex mutex_;
  size_t bytes_ = 0;
  Entries entries_;                                       // most recently used first
  std::map<std::string, Entries::iterator> by_first_id_;  // ids are unique over time
};

}  // namespace cachalot::serve
