// SPDX-License-Identifier: Apache-2.0
// The DSML parsers from any bytes: the stream parser gives the same for any cuts and never lets the
// token out; where the strict parser accepts, both agree.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "cachalot/chat/markers.h"
#include "cachalot/chat/messages.h"
#include "cachalot/chat/parse_strict.h"
#include "cachalot/chat/stream_parser.h"

namespace {

using namespace cachalot::chat;  // NOLINT: one file, one purpose

constexpr std::string_view kTools = R"([
  {"type":"function","function":{"name":"f","parameters":{"properties":{
    "a":{"type":"string"},"b":{"type":"integer"}},"required":["a"]}}}])";

// The first byte of the input.
ParserOptions OptionsOf(uint8_t bits) {
  ParserOptions options{.format = (bits & 1) != 0 ? Format::kV4_1 : Format::kV4Preview};
  options.thinking = (bits & 2) != 0;
  if ((bits & 4) != 0) {
    const auto json = ParseJsonValue(kTools, "tools");
    options.tools = ToolSchemasOf(*ToolFunctionsFromJson(*json, "tools"));
  }
  options.parse_tools = (bits & 8) == 0;
  if ((bits & 16) != 0) options.stops = {"STOP", "\n\n", "aab"};
  options.inside_block = options.parse_tools && (bits & 32) != 0;
  return options;
}

// The protocol's bars as one ASCII byte, so that mutations find tags.
std::string Spelled(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '|' ? std::string("\uFF5C") : std::string(1, c);
  return out;
}

// Pieces of 1..8 bytes; their lengths come from the text itself.
std::string InPieces(std::string_view text, const ParserOptions& options, uint32_t seed) {
  MessageBuilder builder(options.format);
  StreamParser parser(options, [&builder](const Event& event) { builder.Add(event); });
  for (size_t i = 0; i < text.size();) {
    seed = seed * 1664525u + 1013904223u;
    const size_t length = 1 + (seed >> 29);
    parser.Feed(text.substr(i, length));
    i += length;
  }
  parser.Finish();
  return MessageToJson(builder.message());
}

bool Leaks(const ParsedMessage& message) {
  const auto has = [](const std::string& text) { return text.find(kDsml) != std::string::npos; };
  for (const ParsedCall& call : message.tool_calls) {
    if (has(call.name) || has(call.arguments)) return true;
  }
  return has(message.content) || has(message.reasoning_content);
}

// Values may differ: strict passes them as they are, the stream mends them.
bool SameTexts(const ParsedMessage& a, const ParsedMessage& b) {
  return a.reasoning_content == b.reasoning_content && a.content == b.content;
}

// The stream drops these, the strict parser keeps them. [chat.md 8.3, rule 13]
bool HasEdgeNewlines(const ParsedMessage& message) {
  const auto edge = [](const std::string& text) {
    return text.starts_with('\n') || text.ends_with('\n');
  };
  return edge(message.content) || edge(message.reasoning_content);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const ParserOptions options = OptionsOf(data[0]);
  const std::string text = Spelled({reinterpret_cast<const char*>(data) + 1, size - 1});
  const ParsedMessage whole = ParseCompletion(text, options);
  if (options.parse_tools && Leaks(whole)) std::abort();
  if (InPieces(text, options, static_cast<uint32_t>(size)) != MessageToJson(whole)) std::abort();
  const auto strict = ParseStrict(text, {.format = options.format, .thinking = options.thinking});
  const bool plain = options.parse_tools && options.stops.empty() && options.tools.empty() &&
                     !options.inside_block;
  if (strict.ok() && plain && !HasEdgeNewlines(*strict) && !SameTexts(*strict, whole)) std::abort();
  return 0;
}
