// SPDX-License-Identifier: Apache-2.0
// cachalot perplexity: how well the model predicts a text.
#include <fmt/format.h>

#include <memory>

#include "cachalot/base/json.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/progress.h"
#include "cachalot/cli/text_model.h"
#include "cachalot/eval/perplexity.h"

namespace cachalot::cli {
namespace {

struct PerplexityFlags {
  EngineFlags engine;
  std::string file;
  uint32_t window = 2048;
  bool json = false;
};

void Print(const PerplexityFlags& flags, const eval::PerplexityResult& result) {
  if (!flags.json) {
    fmt::print("perplexity {:.4f}  (nll {:.6f}, {} predictions, window {}, {})\n",
               result.perplexity, result.nll, result.num_tokens, flags.window,
               flags.engine.numerics);
    return;
  }
  const Json json = {{"tokens", result.num_tokens},
                     {"nll", result.nll},
                     {"perplexity", result.perplexity},
                     {"window", flags.window},
                     {"numerics", flags.engine.numerics}};
  fmt::print("{}\n", json.dump());
}

Status RunPerplexity(const PerplexityFlags& flags) {
  CACHALOT_TRY(const TextModel model, OpenTextModel(flags.engine));
  CACHALOT_TRY(const std::string text, ReadInput(flags.file));
  CACHALOT_TRY(const std::vector<uint32_t> ids, model.Encode(text));
  CACHALOT_TRY(const auto runner, eval::LogitRunner::Create(
                                      model.weights, flags.engine.ToRunnerOptions(flags.window)));
  InstallInterruptHandler();
  ProgressBar progress("perplexity");
  const auto report = [&](uint64_t done, uint64_t total, double) {
    progress.Update(done, total);
    return !InterruptRequested();
  };
  CACHALOT_TRY(const auto result, eval::Perplexity(*runner, ids, flags.window, report));
  progress.Clear();
  Print(flags, result);
  return {};
}

}  // namespace

void RegisterPerplexity(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<PerplexityFlags>();
  CLI::App* command =
      app.add_subcommand("perplexity", "Measure how well the model predicts a text");
  AddEngineFlags(*command, flags->engine, false);
  command->add_option("FILE", flags->file, "UTF-8 text; - for standard input")->required();
  command->add_option("--window", flags->window, "Predictions of each fresh window (default: 2048)")
      ->check(CLI::Range(1, 1 << 24));
  command->add_flag("--json", flags->json, "{tokens, nll, perplexity, window, numerics}");
  SetExamples(*command,
              "cachalot perplexity book.txt\n"
              "cachalot perplexity -m DIR --window 512 --numerics reference --json book.txt");
  command->callback([flags, &exit_code] {
    const Status status = RunPerplexity(*flags);
    if (!status.ok()) exit_code = Report(status.error());
  });
}

}  // namespace cachalot::cli
