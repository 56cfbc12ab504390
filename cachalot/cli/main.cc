// SPDX-License-Identifier: Apache-2.0
// The cachalot binary: one sub-command a file (cmd_*.cc), registered here.
#include <cstdio>
#include <exception>
#include <new>
#include <system_error>

#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"

namespace {

constexpr int kUsageError = 2;

constexpr const char* kExamples =
    "cachalot run -p \"Once upon a time\"\n"
    "cachalot chat\n"
    "cachalot inspect flash\n"
    "cachalot COMMAND --help";

void RegisterAll(CLI::App& app, int& exit_code) {
  using namespace cachalot::cli;  // NOLINT: the list below, nothing else
  const std::initializer_list<RegisterCommand> commands = {
      RegisterBench,       //
      RegisterCache,       //
      RegisterChat,        //
      RegisterEval,        //
      RegisterInspect,     //
      RegisterLogits,      //
      RegisterPerplexity,  //
      RegisterRun,         //
      RegisterSynth,       //
      RegisterTokenize,    //
      RegisterRender,      //
      RegisterParse,       //
      RegisterServe,       //
      RegisterData,        //
      RegisterTokenizer,   //
      RegisterPlot,        //
      RegisterTrain,       //
  };
  for (const auto register_command : commands) register_command(app, exit_code);
}

// Help and version go to standard output and are no error; anything else is one line.
int ReportUsage(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) return app.exit(error);
  std::fprintf(stderr, "cachalot: usage: %s (see cachalot --help, cachalot COMMAND --help)\n",
               error.what());
  return kUsageError;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"cachalot: run DeepSeek-V4 on CPUs"};
  app.name("cachalot");
  app.set_version_flag("--version", CACHALOT_VERSION);
  app.require_subcommand(0, 1);
  int exit_code = 0;
  RegisterAll(app, exit_code);
  cachalot::cli::SetExamples(app, kExamples);
  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) std::fputs(app.help().c_str(), stdout);
  } catch (const CLI::ParseError& e) {
    return ReportUsage(app, e);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr,
                 "cachalot: out of memory; free some, lower --chunk or --max-context, or raise the "
                 "shell's limit (ulimit -v)\n");
    return cachalot::ExitCode(cachalot::ErrorCode::kResourceExhausted);
  } catch (const std::system_error& e) {  // a thread that cannot start
    std::fprintf(
        stderr,
        "cachalot: cannot start a thread: %s; lower --threads, or raise the shell's limits "
        "(ulimit -u, ulimit -v)\n",
        e.what());
    return cachalot::ExitCode(cachalot::ErrorCode::kResourceExhausted);
  } catch (const std::exception& e) {
    // Nothing is known to come here: the library itself throws nothing.
    std::fprintf(stderr, "cachalot: internal error: %s\n", e.what());
    return cachalot::ExitCode(cachalot::ErrorCode::kInternal);
  }
  return exit_code;
}
