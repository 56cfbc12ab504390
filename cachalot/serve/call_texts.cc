// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/call_texts.h"

#include <algorithm>
#include <utility>

#include "cachalot/chat/python_json.h"

namespace cachalot::serve {
namespace {

// Clients parse arguments and write them again.
std::string OneSpelling(const std::string& arguments) {
  const auto json = chat::ParseJsonValue(arguments, "arguments");
  return json.ok() ? chat::DumpPythonJson(*json) : arguments;
}

bool Same(const chat::ToolCall& kept, const chat::ToolCall& given) {
  return kept.id == given.id && kept.name == given.name &&
         kept.arguments == OneSpelling(given.arguments);
}

}  // namespace

size_t CallTexts::Entry::bytes() const {
  size_t bytes = sizeof(Entry) + text.size();
  for (const auto& call : calls) {
    bytes += sizeof(call) + call.id.size() + call.name.size() + call.arguments.size();
  }
  return bytes;
}

void CallTexts::Add(kvcache::CacheScope scope, std::vector<chat::ToolCall> calls,
                    std::string text) {
  if (calls.empty() || text.empty()) return;
  for (auto& call : calls) call.arguments = OneSpelling(call.arguments);
  const std::lock_guard lock(mutex_);
  const std::string& id = calls.front().id;
  if (const auto known = by_first_id_.find(id); known != by_first_id_.end()) Erase(known->second);
  entries_.push_front({scope, std::move(calls), std::move(text)});
  by_first_id_[entries_.front().calls.front().id] = entries_.begin();
  bytes_ += entries_.front().bytes();
  while (bytes_ > max_bytes_) Erase(std::prev(entries_.end()));
}

void CallTexts::Replay(kvcache::CacheScope scope, std::vector<chat::Message>& messages) {
  const std::lock_guard lock(mutex_);
  for (chat::Message& message : messages) {
    if (message.tool_calls.empty()) continue;
    const auto found = by_first_id_.find(message.tool_calls.front().id);
    if (found == by_first_id_.end() || found->second->scope != scope) continue;
    const Entry& entry = *found->second;
    if (!std::ranges::equal(entry.calls, message.tool_calls, Same)) continue;
    message.calls_text = entry.text;
    entries_.splice(entries_.begin(), entries_, found->second);
  }
}

void CallTexts::Purge(kvcache::CacheScope scope) {
  const std::lock_guard lock(mutex_);
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto entry = it++;
    if (entry->scope == scope) Erase(entry);
  }
}

void CallTexts::Erase(Entries::iterator entry) {
  bytes_ -= entry->bytes();
  by_first_id_.erase(entry->calls.front().id);
  entries_.erase(entry);
}

}  // namespace cachalot::serve
