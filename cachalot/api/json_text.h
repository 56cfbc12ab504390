// SPDX-License-Identifier: Apache-2.0
// JSON and event-stream text, put together from pieces of JSON text. Keys come in the order given,
// without spaces: replies are compared byte for byte in tests and in people's terminals.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::api {

struct JsonMember {
  std::string_view key;  // needs no escaping
  std::string value;     // JSON text; a member whose value is "" is left out
};

std::string JsonObject(std::initializer_list<JsonMember> members);
std::string JsonList(const std::vector<std::string>& items);
// A JSON string of valid UTF-8, whatever the bytes of `text`.
std::string JsonText(std::string_view text);
// Shortest text that reads back equal; what JSON cannot hold, and all below it, is -9999.0, as the
// hosted API writes it. [api.md 4.10]
std::string JsonLogprob(float logprob);
// The bytes as a list of numbers.
std::string JsonBytes(std::string_view bytes);

// One event of a stream; `name` "" writes no event line.
std::string SseEvent(std::string_view name, std::string_view json);

}  // namespace cachalot::api
