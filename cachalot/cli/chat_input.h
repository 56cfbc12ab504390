// SPDX-License-Identifier: Apache-2.0
// What a person types in `chat`: messages over one or several lines, and /commands.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cachalot/base/error.h"

namespace cachalot::cli {

enum class ChatCommandKind : uint8_t {
  kHelp,
  kThink,   // off, low, high, max
  kSystem,  // TEXT; empty: shows it
  kRead,    // FILE
  kSave,    // FILE
  kLoad,    // FILE
  kClear,
  kStats,
  kRegen,
  kQuit,
};

struct ChatCommand {
  ChatCommandKind kind = ChatCommandKind::kHelp;
  std::string argument;  // without white space around it
};

// True if `text` is meant as a command: one line that starts with "/" and a letter. A path as the
// first word ("/usr/lib is full") is told apart by a second slash.
bool IsChatCommand(std::string_view text);

// kInvalidArgument naming the command, what it wants, and /help.
Result<ChatCommand> ParseChatCommand(std::string_view line);

// One line a command, for /help.
std::string_view ChatHelp();

// Joins lines: a trailing backslash continues the line, """ opens and closes a block that is taken
// as it is. The text of a block may begin and end on the lines of its marks.
class InputAssembler {
 public:
  // The whole input once `line` (without its newline) completes it.
  std::optional<std::string> Push(std::string_view line);
  bool pending() const { return in_block_ || !text_.empty(); }
  // What there is at the end of input.
  std::string Flush();

 private:
  std::optional<std::string> PushToBlock(std::string_view line);
  std::string text_;
  bool in_block_ = false;
};

}  // namespace cachalot::cli
