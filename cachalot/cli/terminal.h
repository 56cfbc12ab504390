// SPDX-License-Identifier: Apache-2.0
// What the terminal can do, and the few escape sequences used.
#pragma once

#include <string>
#include <string_view>

namespace cachalot::cli {

bool StdinIsTerminal();
bool StdoutIsTerminal();
bool StderrIsTerminal();

// Whether to color what goes to a stream: a terminal, NO_COLOR unset or empty (no-color.org), and
// TERM not "dumb".
bool UseColor(bool is_terminal);

// Columns of the terminal on standard error; 80 if unknown.
int TerminalColumns();

// Escape sequences, or empty strings without color.
struct Style {
  std::string_view dim;
  std::string_view bold;
  std::string_view reset;
};
Style StyleFor(bool color);

// Model output for a terminal: control characters other than newline and tab could move the cursor
// or reprogram the terminal, so they become U+FFFD. UTF-8 passes; C1 controls (C2 80..9F) do not.
std::string SanitizeForTerminal(std::string_view text);

}  // namespace cachalot::cli
