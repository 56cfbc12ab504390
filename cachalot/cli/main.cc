// SPDX-License-Identifier: Apache-2.0
// The cachalot binary: one sub-command a file (cmd_*.cc), registered here.
#include <cstdio>
#include <exception>

#include "cachalot/cli/command.h"

int main(int argc, char** argv) {
  CLI::App app{"cachalot: run DeepSeek-V4 on CPUs"};
  app.name("cachalot");
  app.require_subcommand(1);
  int exit_code = 0;
  const std::initializer_list<cachalot::cli::RegisterCommand> commands = {
      cachalot::cli::RegisterBench,
      cachalot::cli::RegisterInspect,
      cachalot::cli::RegisterLogits,
      cachalot::cli::RegisterSynth,
  };
  for (const auto register_command : commands) register_command(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    // Only bad_alloc and the like: the library itself throws nothing.
    std::fprintf(stderr, "cachalot: internal error: %s\n", e.what());
    return cachalot::ExitCode(cachalot::ErrorCode::kInternal);
  }
  return exit_code;
}
