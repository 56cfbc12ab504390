// SPDX-License-Identifier: Apache-2.0
// One line from a person: libedit with a history file on a terminal, plain lines otherwise.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace cachalot::cli {

enum class LineStatus : uint8_t { kLine, kInterrupted, kEnd };

class LineEditor {
 public:
  // History lives in $XDG_STATE_HOME/cachalot/chat_history (default ~/.local/state); without a home
  // it lasts for the process.
  LineEditor();
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  // `line` without its newline. kInterrupted after Ctrl-C (InstallInterruptHandler was called);
  // `line` then holds what was typed so far if that is not empty.
  LineStatus Read(const std::string& prompt, std::string& line);
  void AddHistory(const std::string& text);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;  // null where standard input is not a terminal
};

}  // namespace cachalot::cli
