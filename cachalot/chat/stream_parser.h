// SPDX-License-Identifier: Apache-2.0
// A completion to a message while it streams: reasoning, answer, tool calls. [chat.md 8.2, 8.3;
// docs/design/chat.md]
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/chat/assistant_message.h"
#include "cachalot/chat/format.h"
#include "cachalot/chat/tool_schema.h"

namespace cachalot::chat {

struct ParserOptions {
  Format format = Format::kV4Preview;
  bool thinking = false;            // the prompt ended with <think>
  bool parse_tools = true;          // false: no tools were given, DSML is ordinary text
  bool inside_block = false;        // the prompt ended with the opener of a tool block
  std::vector<ToolSchema> tools;    // empty: any tool name, no rules about declared ones
  bool recover_lost_opener = true;  // with `tools`: accept an invoke outside any block (rule 9)
  std::vector<std::string> stops;   // stop strings, looked for in the answer text only
};

enum class EndCause : uint8_t {
  kInput,       // Finish() was called: the token limit, or the engine ate the end marker
  kEos,         // the end-of-sentence marker was in the text
  kStopString,  // see StreamParser::matched_stop()
};

struct Event {
  enum class Kind : uint8_t {
    kReasoning,  // text
    kContent,    // text
    kCallStart,  // text = name
    kArguments,  // text: more of the JSON text of the last started call
    kCallEnd,    // its arguments are complete; does not come for a truncated call
    kFinish,     // cause; nothing follows
  };
  Kind kind;
  std::string_view text;  // valid during the callback
  EndCause cause = EndCause::kInput;
};
using EventSink = std::function<void(const Event&)>;

// Any bytes may be fed in any pieces: texts put together, calls and cause do not depend on the
// cuts. If the pieces are whole UTF-8 characters (tokenizer::StreamDecoder), so are the events'
// texts. With parse_tools, the token |DSML| (fullwidth bars) is in no text and no argument.
// O(bytes), holds what may still be markup, a value that must be seen whole, and newlines that may
// precede a block.
class StreamParser {
 public:
  StreamParser(ParserOptions options, EventSink sink);
  ~StreamParser();
  StreamParser(StreamParser&&) noexcept;
  StreamParser& operator=(StreamParser&&) noexcept;

  // Ignored after the end.
  void Feed(std::string_view bytes);
  // No more bytes will come: what is held is decided. Sends kFinish unless it was sent before.
  void Finish();

  // Nothing that follows can matter (end marker, stop string, or end of the tool block): generation
  // may stop. Finish() is still to be called.
  bool done() const;
  // The stop string that ended the answer.
  const std::optional<std::string>& matched_stop() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// An EventSink that puts the message together.
class MessageBuilder {
 public:
  explicit MessageBuilder(Format format) : format_(format) {}
  void Add(const Event& event);

  const ParsedMessage& message() const { return message_; }
  EndCause cause() const { return cause_; }

 private:
  Format format_;
  ParsedMessage message_;
  EndCause cause_ = EndCause::kInput;
};

// A whole completion at once.
ParsedMessage ParseCompletion(std::string_view text, const ParserOptions& options);

}  // namespace cachalot::chat
