// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/command.h"

#include <signal.h>  // NOLINT: sigaction is POSIX

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <iterator>

#include "cachalot/base/strings.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::cli {
namespace {

constexpr const char* kDefaultModel = "mini";
constexpr uint64_t kMaxInputBytes = uint64_t{1} << 30;

// A signal handler can reach nothing but a lock-free atomic; this and its accessor are the only
// mutable state of the binary outside of objects.
std::atomic<bool> interrupt_requested{false};

void OnInterrupt(int signal) {
  if (interrupt_requested.exchange(true)) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

}  // namespace

int Report(const Error& error) {
  std::fprintf(stderr, "cachalot: %s: %s\n", std::string(ErrorCodeName(error.code)).c_str(),
               error.message.c_str());
  return ExitCode(error.code);
}

void AddModelOption(CLI::App& command, std::string& model) {
  command.add_option("-m,--model", model,
                     "Model directory, or a name under the models folder (default: mini)");
}

Result<std::string> ResolveModel(const std::string& model) {
  namespace fs = std::filesystem;
  std::error_code ec;
  if (!model.empty() && fs::is_directory(model, ec)) return model;
  const char* env = std::getenv("CACHALOT_MODELS");
  const fs::path folder = env != nullptr ? fs::path(env) : fs::path(CACHALOT_MODELS_DIR);
  const fs::path named = folder / (model.empty() ? kDefaultModel : model.c_str());
  if (fs::is_directory(named, ec)) return named.string();
  return Error{
      ErrorCode::kNotFound,
      StrCat("model '", model.empty() ? kDefaultModel : model, "': no directory ",
             model.empty() ? named.string() : StrCat(model, " and none at ", named.string()),
             "; give a checkpoint directory with -m")};
}

const std::atomic<bool>& InterruptRequested() { return interrupt_requested; }
void InstallInterruptHandler() {
  // Not std::signal: without SA_RESTART a blocking read of the line editor returns at once.
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
}
void ClearInterrupt() { interrupt_requested = false; }

Result<std::string> ReadInput(const std::string& path) {
  if (!path.empty() && path != "-") return io::ReadFile(path, kMaxInputBytes);
  std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  return text;
}

}  // namespace cachalot::cli
