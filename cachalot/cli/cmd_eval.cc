// SPDX-License-Identifier: Apache-2.0
// cachalot eval: what numerics cost in quality, held to bounds (--gate); what the small model can
// do (mini, in eval_mini.cc).
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/eval_mini.h"
#include "cachalot/cli/progress.h"
#include "cachalot/cli/text_model.h"
#include "cachalot/eval/perplexity.h"
#include "cachalot/eval/quality_gate.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::cli {
namespace {

constexpr uint32_t kGateTokens = 2000;  // of the held-out text, read in both numerics
constexpr uint32_t kWindow = 512;
constexpr uint64_t kMaxTextBytes = uint64_t{1} << 24;
// models/mini/README.md: `reference` over the windows of the whole held-out text.
constexpr double kRecordedPerplexity = 33.9341;

struct EvalFlags {
  EngineFlags engine;  // .model: the model with a held-out text
  std::string golden = CACHALOT_MODELS_DIR "/../tests/golden/tiny-flash";
  bool gate = false;
  bool json = false;
};

// The prompts of the golden model: tensors "ids.N" of expected.safetensors, int64.
Result<std::vector<std::vector<uint32_t>>> GoldenPrompts(const std::string& dir) {
  const std::string path = dir + "/expected.safetensors";
  CACHALOT_TRY(const io::MappedFile file, io::MappedFile::Open(path));
  CACHALOT_TRY(const auto tensors, checkpoint::ParseSafetensors(path, file.data(), file.size()));
  std::vector<std::vector<uint32_t>> prompts;
  for (const checkpoint::TensorInfo& info : tensors) {
    if (info.name.rfind("ids.", 0) != 0) continue;
    std::vector<int64_t> wide(info.num_elements());
    if (info.bytes != wide.size() * sizeof(int64_t)) {
      return Error{ErrorCode::kDataCorruption, StrCat(path, ": ", info.name, ": expected int64")};
    }
    std::memcpy(wide.data(), info.data, info.bytes);
    prompts.emplace_back(wide.begin(), wide.end());
  }
  if (prompts.empty()) return Error{ErrorCode::kNotFound, StrCat(path, ": no tensor ids.N in it")};
  return prompts;
}

eval::RunnerOptions Options(const EvalFlags& flags, model::Numerics numerics) {
  eval::RunnerOptions options = flags.engine.ToRunnerOptions(1);
  options.numerics = numerics;
  return options;
}

void Append(std::vector<eval::GateCheck>& all, std::vector<eval::GateCheck> more) {
  for (eval::GateCheck& check : more) all.push_back(std::move(check));
}

Status CheckMini(const EvalFlags& flags, std::vector<eval::GateCheck>& checks) {
  CACHALOT_TRY(const std::string dir, ResolveModel(flags.engine.model));
  CACHALOT_TRY(const TextModel model, OpenTextModel(flags.engine));
  CACHALOT_TRY(const std::string text, io::ReadFile(dir + "/heldout.txt", kMaxTextBytes));
  CACHALOT_TRY(std::vector<uint32_t> ids, model.Encode(text));
  const model::Numerics numerics = flags.engine.numerics_value();

  eval::RunnerOptions options = Options(flags, numerics);
  options.max_tokens = kWindow;
  CACHALOT_TRY(const auto runner, eval::LogitRunner::Create(model.weights, options));
  InstallInterruptHandler();
  ProgressBar progress("perplexity");
  CACHALOT_TRY(const auto result,
               eval::Perplexity(*runner, ids, kWindow, [&](uint64_t done, uint64_t total, double) {
                 progress.Update(done, total);
                 return !InterruptRequested();
               }));
  progress.Clear();

  ids.resize(std::min<size_t>(ids.size(), kGateTokens));
  const std::vector<std::vector<uint32_t>> sequences = {std::move(ids)};
  CACHALOT_TRY(
      const auto comparison,
      eval::CompareNumerics(model.weights, sequences, Options(flags, model::Numerics::kReference),
                            Options(flags, numerics)));
  Append(checks, eval::KlChecks("mini", comparison, eval::kMiniBounds));
  checks.push_back({.what = "mini: perplexity of the held-out text",
                    .value = result.perplexity,
                    .bound = kRecordedPerplexity * eval::kPerplexityFactor});
  return {};
}

Status CheckTiny(const EvalFlags& flags, std::vector<eval::GateCheck>& checks) {
  CACHALOT_TRY(const auto weights, model::LoadWeights(flags.golden));
  CACHALOT_TRY(const auto prompts, GoldenPrompts(flags.golden));
  CACHALOT_TRY(const auto comparison,
               eval::CompareNumerics(weights, prompts, Options(flags, model::Numerics::kReference),
                                     Options(flags, flags.engine.numerics_value())));
  Append(checks, eval::KlChecks("tiny golden", comparison, eval::kTinyBounds));
  return {};
}

void Print(const EvalFlags& flags, const std::vector<eval::GateCheck>& checks) {
  if (flags.json) {
    Json rows = Json::array();
    for (const eval::GateCheck& c : checks) {
      rows.push_back({{"what", c.what}, {"value", c.value}, {"bound", c.bound}, {"ok", c.ok()}});
    }
    fmt::print("{}\n", Json{{"numerics", flags.engine.numerics}, {"checks", rows}}.dump());
    return;
  }
  fmt::print("{} against reference\n", flags.engine.numerics);
  for (const eval::GateCheck& c : checks) {
    fmt::print("  {:<40} {:>10.4g}  at most {:<10.4g} {}\n", c.what, c.value, c.bound,
               c.ok() ? "ok" : "EXCEEDED");
  }
}

// Whether every bound held.
Result<bool> RunGate(const EvalFlags& flags) {
  std::vector<eval::GateCheck> checks;
  CACHALOT_RETURN_IF_ERROR(CheckMini(flags, checks));
  CACHALOT_RETURN_IF_ERROR(CheckTiny(flags, checks));
  Print(flags, checks);
  return std::ranges::all_of(checks, &eval::GateCheck::ok);
}

}  // namespace

void RegisterEval(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* command = app.add_subcommand(
      "eval", "Measure what numerics cost in quality, or what the small model can do");
  AddEngineFlags(*command, flags->engine, /*with_context=*/false);
  command->add_flag("--gate", flags->gate,
                    "KL divergence against `reference` and perplexity, held to bounds; exit code 1 "
                    "beyond one");
  command->add_option("--golden", flags->golden,
                      "The tiny golden model (default: the repository's)");
  command->add_flag("--json", flags->json, "{numerics, checks: [{what, value, bound, ok}]}");
  SetExamples(
      *command,
      "cachalot eval --gate\ncachalot eval --gate --target avx2 --json\ncachalot eval mini");
  AddEvalMini(*command, exit_code);
  command->callback([flags, command, &exit_code] {
    if (!command->get_subcommands().empty()) return;
    if (!flags->gate) throw CLI::RequiredError("eval: --gate or a sub-command (mini)");
    const Result<bool> held = RunGate(*flags);
    if (!held.ok()) {
      exit_code = Report(held.error());
    } else if (!*held) {
      exit_code = 1;
    }
  });
}

}  // namespace cachalot::cli
