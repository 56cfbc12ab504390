// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/line_editor.h"

#include <histedit.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <filesystem>
#include <iostream>

#include "cachalot/cli/command.h"
#include "cachalot/cli/terminal.h"

namespace cachalot::cli {
namespace {

constexpr int kHistoryLines = 1000;
constexpr char kCtrlC = 3;

std::string HistoryPath() {
  namespace fs = std::filesystem;
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  fs::path folder;
  if (state != nullptr && *state == '/') {
    folder = state;
  } else if (home != nullptr && *home == '/') {
    folder = fs::path(home) / ".local" / "state";
  } else {
    return {};
  }
  std::error_code ec;
  fs::create_directories(folder / "cachalot", ec);
  return ec ? std::string() : (folder / "cachalot" / "chat_history").string();
}

// False if an interrupt comes before input does. SIGINT is blocked between the look at the flag and
// the wait, which opens it again atomically: one that arrives in between is seen, not slept
// through.
bool WaitForInput() {
  sigset_t interrupt;
  sigset_t before;
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  pthread_sigmask(SIG_BLOCK, &interrupt, &before);
  pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  while (!InterruptRequested() && ::ppoll(&input, 1, nullptr, &before) < 0 && errno == EINTR) {
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return !InterruptRequested();
}

// libedit retries a read that a signal interrupted, so Ctrl-C would go unnoticed: this reader
// returns on it. One wide character per call; bytes that are no character of the locale are
// dropped.
int ReadCharacter(EditLine*, wchar_t* out) {
  std::mbstate_t state{};
  for (;;) {
    if (!WaitForInput()) {
      errno = EINTR;
      return -1;
    }
    char byte = 0;
    const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
    if (n == 0) return 0;
    if (n < 0) {
      if (errno == EINTR && !InterruptRequested()) continue;
      return -1;
    }
    if (byte == kCtrlC) {
      errno = EINTR;
      return -1;
    }
    const size_t length = std::mbrtowc(out, &byte, 1, &state);
    if (length == static_cast<size_t>(-2)) continue;  // more bytes of this character follow
    if (length == static_cast<size_t>(-1)) {
      state = {};
      continue;
    }
    return 1;
  }
}

}  // namespace

struct LineEditor::Impl {
  EditLine* edit = nullptr;
  History* history = nullptr;
  std::string prompt;
  std::string path;
};

LineEditor::LineEditor() {
  if (!StdinIsTerminal()) return;
  std::setlocale(LC_CTYPE, "");
  if (MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
  impl_ = std::make_unique<Impl>();
  impl_->edit = el_init("cachalot", stdin, stdout, stderr);
  impl_->history = history_init();
  el_set(impl_->edit, EL_CLIENTDATA, impl_.get());
  el_set(
      impl_->edit, EL_PROMPT, +[](EditLine* edit) -> char* {
        void* data = nullptr;
        el_get(edit, EL_CLIENTDATA, &data);
        return static_cast<Impl*>(data)->prompt.data();
      });
  el_set(impl_->edit, EL_EDITOR, "emacs");
  el_set(impl_->edit, EL_SIGNAL, 0);
  el_set(impl_->edit, EL_GETCFN, &ReadCharacter);
  HistEvent event;
  history(impl_->history, &event, H_SETSIZE, kHistoryLines);
  history(impl_->history, &event, H_SETUNIQUE, 1);
  el_set(impl_->edit, EL_HIST, history, impl_->history);
  impl_->path = HistoryPath();
  if (!impl_->path.empty()) history(impl_->history, &event, H_LOAD, impl_->path.c_str());
}

LineEditor::~LineEditor() {
  if (impl_ == nullptr) return;
  HistEvent event;
  if (!impl_->path.empty()) {
    history(impl_->history, &event, H_SAVE, impl_->path.c_str());
    std::error_code ec;
    // What one types to a model is private.
    std::filesystem::permissions(
        impl_->path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write, ec);
  }
  history_end(impl_->history);
  el_end(impl_->edit);
}

LineStatus LineEditor::Read(const std::string& prompt, std::string& line) {
  line.clear();
  if (impl_ == nullptr) {
    return std::getline(std::cin, line) ? LineStatus::kLine : LineStatus::kEnd;
  }
  impl_->prompt = prompt;
  int count = 0;
  errno = 0;
  const char* text = el_gets(impl_->edit, &count);
  if (text == nullptr || count <= 0) {
    if (count < 0 || InterruptRequested()) {
      const LineInfo* typed = el_line(impl_->edit);
      line.assign(typed->buffer, typed->lastchar);
      el_reset(impl_->edit);
      return LineStatus::kInterrupted;
    }
    return LineStatus::kEnd;
  }
  line.assign(text, static_cast<size_t>(count));
  if (line.ends_with('\n')) line.pop_back();
  return LineStatus::kLine;
}

void LineEditor::AddHistory(const std::string& text) {
  if (impl_ == nullptr || text.empty()) return;
  HistEvent event;
  history(impl_->history, &event, H_ENTER, text.c_str());
}

}  // namespace cachalot::cli
