// SPDX-License-Identifier: Apache-2.0
// Parameters of one tool call to the JSON text of its arguments, as far as possible while they
// stream. [chat.md 8.2; 8.3 rules 5, 6, 7, 11]
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "cachalot/chat/token_filter.h"
#include "cachalot/chat/tool_schema.h"

namespace cachalot::chat {

// The string="..." of a parameter tag.
enum class StringFlag : uint8_t { kTrue, kFalse, kMissing };

// One object a call. Order: at most one Body, Begin/Value.../End for each parameter, then Close or
// Truncate. Parameters win over a body.
class CallAssembler {
 public:
  using Sink = std::function<void(std::string_view)>;

  // `tool` (may be null: nothing is known) must outlive this.
  CallAssembler(const ToolSchema* tool, Sink sink) : tool_(tool), sink_(std::move(sink)) {}

  void BeginParameter(const std::string& key, StringFlag flag);
  void Value(std::string_view bytes);
  void EndParameter();
  // The text of an invoke without parameters: a JSON object, bare or in a code fence, becomes the
  // arguments; anything else is dropped.
  void Body(std::string_view text);
  // Ends the arguments.
  void Close();
  // The completion ended here: what has come is passed on, nothing is closed.
  void Truncate();

 private:
  // kStream writes a JSON string as it comes. The others collect the value, because what is
  // written depends on all of it: kJson, kTyped (written as a string, declared as something else),
  // kWrapper (a lone `arguments` or `input` that the schema does not know).
  enum class Mode : uint8_t { kNone, kStream, kJson, kTyped, kWrapper };

  Mode ModeFor(const std::string& key, StringFlag flag) const;
  bool MayBeWrapper(const std::string& key) const;
  void WritePrefix();
  void WriteValue();
  void FlushWrapper();
  std::optional<std::string> Unwrapped() const;

  const ToolSchema* tool_;
  Sink sink_;
  TokenFilter filter_;
  Mode mode_ = Mode::kNone;
  std::string key_;
  StringFlag flag_ = StringFlag::kTrue;
  std::string value_;  // collected
  bool wrapper_held_ = false;
  std::string body_;
  size_t num_parameters_ = 0;
};

}  // namespace cachalot::chat
