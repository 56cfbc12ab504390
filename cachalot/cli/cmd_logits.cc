// SPDX-License-Identifier: Apache-2.0
// cachalot logits: the logits of every position of an id sequence, as safetensors.
#include <fmt/format.h>

#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/id_file.h"
#include "cachalot/cli/progress.h"
#include "cachalot/cli/row_file.h"

namespace cachalot::cli {
namespace {

struct LogitsFlags {
  EngineFlags engine;
  std::string ids_path;
  std::string mtp_next_path;
  std::string out_path;
  std::string positions = "all";
  bool hidden = false;
};

struct LogitsInput {
  std::vector<uint32_t> ids;
  std::vector<uint32_t> mtp_next;  // empty or as long as ids
};

Result<std::vector<uint32_t>> LoadIds(const std::string& path, uint32_t vocab_size) {
  CACHALOT_TRY(const std::string text, ReadInput(path));
  return ParseIds(text, path == "-" ? "standard input" : path, vocab_size);
}

Result<LogitsInput> LoadInput(const LogitsFlags& flags, uint32_t vocab_size) {
  LogitsInput input;
  CACHALOT_TRY(input.ids, LoadIds(flags.ids_path, vocab_size));
  if (flags.mtp_next_path.empty()) return input;
  CACHALOT_TRY(input.mtp_next, LoadIds(flags.mtp_next_path, vocab_size));
  if (input.mtp_next.size() != input.ids.size()) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("--mtp-next ", flags.mtp_next_path, ": ", input.mtp_next.size(),
                        " ids, expected ", input.ids.size(), ", one for each id of --ids")};
  }
  return input;
}

// Tensors in the order of the file; an index past the end means "not asked for".
struct OutputPlan {
  std::vector<RowTensor> tensors;
  size_t mtp = SIZE_MAX;
  size_t hidden = SIZE_MAX;
};

OutputPlan PlanOutput(const LogitsFlags& flags, const LogitsInput& input,
                      const model::Config& config) {
  OutputPlan plan;
  const uint64_t n = input.ids.size();
  plan.tensors.push_back({"logits", flags.positions == "last" ? 1 : n, config.vocab_size});
  if (!input.mtp_next.empty()) {
    plan.mtp = plan.tensors.size();
    plan.tensors.push_back({"mtp_logits", n, config.vocab_size});
  }
  if (flags.hidden) {
    plan.hidden = plan.tensors.size();
    plan.tensors.push_back({"hidden", n, config.hidden_size});
  }
  return plan;
}

Status WriteChunk(RowFile& file, const OutputPlan& plan, const eval::ChunkOutputs& chunk) {
  const bool all = plan.tensors[0].rows > 1;
  CACHALOT_RETURN_IF_ERROR(file.Write(0, all ? chunk.first : 0, chunk.logits));
  if (plan.mtp != SIZE_MAX) {
    CACHALOT_RETURN_IF_ERROR(file.Write(plan.mtp, chunk.first, chunk.mtp_logits));
  }
  if (plan.hidden != SIZE_MAX) {
    CACHALOT_RETURN_IF_ERROR(file.Write(plan.hidden, chunk.first, chunk.hidden));
  }
  return {};
}

Status RunLogits(const LogitsFlags& flags) {
  CACHALOT_TRY(const std::string dir, ResolveModel(flags.engine.model));
  CACHALOT_TRY(const auto weights, model::LoadWeights(dir));
  CACHALOT_TRY(const LogitsInput input, LoadInput(flags, weights->config.vocab_size));
  eval::RunnerOptions options =
      flags.engine.ToRunnerOptions(static_cast<uint32_t>(input.ids.size()));
  options.with_mtp = !input.mtp_next.empty();
  options.with_hidden = flags.hidden;
  CACHALOT_TRY(const auto runner, eval::LogitRunner::Create(weights, options));
  const OutputPlan plan = PlanOutput(flags, input, weights->config);
  CACHALOT_TRY(RowFile file, RowFile::Create(flags.out_path, plan.tensors));
  InstallInterruptHandler();
  ProgressBar progress("computing logits");
  const auto sink = [&](const eval::ChunkOutputs& chunk) -> Status {
    CACHALOT_RETURN_IF_ERROR(WriteChunk(file, plan, chunk));
    progress.Update(chunk.first + chunk.num_tokens, input.ids.size());
    if (!InterruptRequested()) return {};
    return Error{ErrorCode::kCancelled, StrCat("stopped; ", flags.out_path, " is not written")};
  };
  const auto positions =
      flags.positions == "last" ? eval::LogitPositions::kLast : eval::LogitPositions::kAll;
  CACHALOT_RETURN_IF_ERROR(runner->Run(input.ids, input.mtp_next, positions, sink));
  return file.Publish();
}

}  // namespace

void RegisterLogits(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<LogitsFlags>();
  CLI::App* command = app.add_subcommand("logits",
                                         "Write the logits of every position of an id "
                                         "sequence as safetensors");
  AddEngineFlags(*command, flags->engine, false);
  command
      ->add_option("--ids", flags->ids_path,
                   "Token ids separated by white space; - for standard input")
      ->required();
  command->add_option("--out", flags->out_path, "Safetensors file to write")->required();
  command->add_option("--mtp-next", flags->mtp_next_path,
                      "For each id, the one fed beside it to the MTP block; adds mtp_logits");
  command->add_option("--positions", flags->positions, "all (default) or last")
      ->check(CLI::IsMember({"all", "last"}));
  command->add_flag("--hidden", flags->hidden, "Add hidden [N, hidden_size], after the last norm");
  SetExamples(
      *command,
      "echo 5 17 320 | cachalot logits --ids - --out logits.safetensors\n"
      "cachalot logits --ids ids.txt --mtp-next next.txt --numerics reference --out "
      "out.safetensors\n"
      "cachalot logits -m DIR --ids ids.txt --positions last --hidden --out out.safetensors");
  command->callback([flags, &exit_code] {
    const Status status = RunLogits(*flags);
    if (!status.ok()) exit_code = Report(status.error());
  });
}

}  // namespace cachalot::cli
