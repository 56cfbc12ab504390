// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/json_text.h"

#include <algorithm>
#include <charconv>

#include "cachalot/base/strings.h"
#include "cachalot/chat/assistant_message.h"

namespace cachalot::api {

std::string JsonObject(std::initializer_list<JsonMember> members) {
  std::string out = "{";
  for (const JsonMember& member : members) {
    if (member.value.empty()) continue;
    if (out.size() > 1) out += ',';
    out += '"';
    out += member.key;
    out += "\":";
    out += member.value;
  }
  return out += '}';
}

std::string JsonList(const std::vector<std::string>& items) {
  std::string out = "[";
  for (const std::string& item : items) {
    if (out.size() > 1) out += ',';
    out += item;
  }
  return out += ']';
}

std::string JsonText(std::string_view text) { return chat::SafeJsonString(std::string(text)); }

std::string JsonLogprob(float logprob) {
  if (!(logprob >= -9999.0F)) return "-9999.0";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), std::min(logprob, 0.0F));
  return std::string(buffer, end.ptr);
}

std::string JsonBytes(std::string_view bytes) {
  std::vector<std::string> items;
  items.reserve(bytes.size());
  for (const char c : bytes) items.push_back(std::to_string(static_cast<unsigned char>(c)));
  return JsonList(items);
}

std::string SseEvent(std::string_view name, std::string_view json) {
  std::string out;
  out.reserve(name.size() + json.size() + 18);
  if (!name.empty()) {
    out += "event: ";
    out += name;
    out += '\n';
  }
  out += "data: ";
  out += json;
  return out += "\n\n";
}

}  // namespace cachalot::api
