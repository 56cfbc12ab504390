// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/chat_input.h"

#include <array>
#include <cctype>
#include <utility>

#include "cachalot/base/strings.h"

namespace cachalot::cli {
namespace {

constexpr std::string_view kBlockMark = "\"\"\"";

enum class Takes : uint8_t { kNothing, kText, kFile, kLevel };

struct CommandRow {
  std::string_view name;
  ChatCommandKind kind;
  Takes takes;
};

constexpr std::array<CommandRow, 12> kCommands = {{
    {"help", ChatCommandKind::kHelp, Takes::kNothing},
    {"?", ChatCommandKind::kHelp, Takes::kNothing},
    {"think", ChatCommandKind::kThink, Takes::kLevel},
    {"system", ChatCommandKind::kSystem, Takes::kText},
    {"read", ChatCommandKind::kRead, Takes::kFile},
    {"save", ChatCommandKind::kSave, Takes::kFile},
    {"load", ChatCommandKind::kLoad, Takes::kFile},
    {"clear", ChatCommandKind::kClear, Takes::kNothing},
    {"stats", ChatCommandKind::kStats, Takes::kNothing},
    {"regen", ChatCommandKind::kRegen, Takes::kNothing},
    {"quit", ChatCommandKind::kQuit, Takes::kNothing},
    {"exit", ChatCommandKind::kQuit, Takes::kNothing},
}};

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

bool IsLevel(std::string_view text) {
  return text == "off" || text == "low" || text == "high" || text == "max";
}

Status CheckArgument(const CommandRow& row, std::string_view argument) {
  const auto wrong = [&](std::string_view wanted) {
    return Error{ErrorCode::kInvalidArgument, StrCat("/", row.name, ": ", wanted)};
  };
  switch (row.takes) {
    case Takes::kNothing:
      if (!argument.empty()) return wrong(StrCat("takes nothing, found '", argument, "'"));
      return {};
    case Takes::kFile:
      if (argument.empty()) return wrong("needs the name of a file");
      return {};
    case Takes::kLevel:
      if (!IsLevel(argument)) {
        return wrong(StrCat("expected off, low, high or max, found '", argument, "'"));
      }
      return {};
    case Takes::kText:
      return {};
  }
  return {};
}

}  // namespace

bool IsChatCommand(std::string_view text) {
  if (text.size() < 2 || text[0] != '/' || text.find('\n') != std::string_view::npos) return false;
  if (text[1] != '?' && std::isalpha(static_cast<unsigned char>(text[1])) == 0) return false;
  const std::string_view word = text.substr(1, text.find_first_of(" \t") - 1);
  return word.find('/') == std::string_view::npos;
}

Result<ChatCommand> ParseChatCommand(std::string_view line) {
  const std::string_view text = Trim(line).substr(1);
  const std::string_view name = text.substr(0, text.find_first_of(" \t"));
  for (const CommandRow& row : kCommands) {
    if (row.name != name) continue;
    const std::string_view argument = Trim(text.substr(name.size()));
    CACHALOT_RETURN_IF_ERROR(CheckArgument(row, argument));
    return ChatCommand{.kind = row.kind, .argument = std::string(argument)};
  }
  return Error{ErrorCode::kInvalidArgument,
               StrCat("/", name, ": no such command; /help lists them")};
}

std::string_view ChatHelp() {
  return "  /think off|low|high|max  how much the model thinks before it answers\n"
         "  /system TEXT             set the system message (clears the conversation)\n"
         "  /read FILE               send a file's text as your message\n"
         "  /save FILE, /load FILE   write or read the conversation (JSON, as `render` reads it)\n"
         "  /regen                   answer the last message again\n"
         "  /clear                   forget the conversation\n"
         "  /stats                   speed and context use\n"
         "  /quit                    leave (also Ctrl-D, or Ctrl-C twice)\n"
         "A line that ends in \\ goes on; lines between \"\"\" and \"\"\" are one message.\n"
         "Ctrl-C stops an answer.\n";
}

std::optional<std::string> InputAssembler::Push(std::string_view line) {
  if (in_block_) return PushToBlock(line);
  if (text_.empty() && line.starts_with(kBlockMark)) {
    in_block_ = true;
    line.remove_prefix(kBlockMark.size());
    return line.empty() ? std::nullopt : PushToBlock(line);
  }
  if (line.ends_with('\\')) {
    text_ += line.substr(0, line.size() - 1);
    text_ += '\n';
    return std::nullopt;
  }
  text_ += line;
  return std::exchange(text_, {});
}

std::optional<std::string> InputAssembler::PushToBlock(std::string_view line) {
  if (!line.ends_with(kBlockMark)) {
    text_ += line;
    text_ += '\n';
    return std::nullopt;
  }
  line.remove_suffix(kBlockMark.size());
  text_ += line;
  if (line.empty() && text_.ends_with('\n')) text_.pop_back();
  in_block_ = false;
  return std::exchange(text_, {});
}

std::string InputAssembler::Flush() {
  in_block_ = false;
  std::string text = std::exchange(text_, {});
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace cachalot::cli
