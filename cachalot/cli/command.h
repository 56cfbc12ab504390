// SPDX-License-Identifier: Apache-2.0
// What every sub-command shares: registration, error reporting, finding the model, Ctrl-C.
// Only cli talks to a terminal, reads flags or the environment.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <string>

#include "cachalot/base/error.h"

namespace cachalot::cli {

// A sub-command adds itself to `app` and, when chosen, runs and sets `exit_code`.
using RegisterCommand = void (*)(CLI::App& app, int& exit_code);
void RegisterBench(CLI::App& app, int& exit_code);
void RegisterCache(CLI::App& app, int& exit_code);
void RegisterEval(CLI::App& app, int& exit_code);
void RegisterInspect(CLI::App& app, int& exit_code);
void RegisterRun(CLI::App& app, int& exit_code);
void RegisterChat(CLI::App& app, int& exit_code);
void RegisterPerplexity(CLI::App& app, int& exit_code);
void RegisterTokenize(CLI::App& app, int& exit_code);
void RegisterSynth(CLI::App& app, int& exit_code);
void RegisterRender(CLI::App& app, int& exit_code);
void RegisterParse(CLI::App& app, int& exit_code);
void RegisterServe(CLI::App& app, int& exit_code);
void RegisterLogits(CLI::App& app, int& exit_code);
void RegisterData(CLI::App& app, int& exit_code);
void RegisterTokenizer(CLI::App& app, int& exit_code);
void RegisterPlot(CLI::App& app, int& exit_code);
void RegisterTrain(CLI::App& app, int& exit_code);

// Prints "cachalot: <code name>: <message>" as one line on standard error; returns the exit code.
int Report(const Error& error);

// Adds "-m,--model MODEL" with the help every command gives it.
void AddModelOption(CLI::App& command, std::string& model);

// A directory for MODEL: an existing directory as given, else a name under the models folder
// ($CACHALOT_MODELS, or `models` beside the repository the binary was built in); empty: the small
// model of the repository. kNotFound names the places looked at.
Result<std::string> ResolveModel(const std::string& model);

// Set by the first Ctrl-C after InstallInterruptHandler(); a second one ends the process.
const std::atomic<bool>& InterruptRequested();
void InstallInterruptHandler();
void ClearInterrupt();

// The bytes of FILE, or of standard input for "-" or "".
Result<std::string> ReadInput(const std::string& path);

}  // namespace cachalot::cli
