// SPDX-License-Identifier: Apache-2.0
// cachalot train: a model from a recipe.
#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/progress.h"
#include "cachalot/cli/terminal.h"
#include "cachalot/comm/communicator.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/kernels/machine_limits.h"
#include "cachalot/threading/topology.h"
#include "cachalot/train/export.h"
#include "cachalot/train/memory_plan.h"
#include "cachalot/train/trainer.h"

namespace cachalot::cli {
namespace {

struct TrainFlags {
  std::string recipe;
  std::string out;
  std::string export_dir;
  std::string evaluate_dir;
  std::string format = "released";
  std::string target;
  uint32_t threads = 0;
  uint32_t ranks = 0;
  std::string experts = "replicated";
  uint64_t until = 0;
  bool plan = false;
  bool mpi = false;
  bool json = false;
};

train::ExpertPlacement PlacementOf(const TrainFlags& flags) {
  return flags.experts == "distributed" ? train::ExpertPlacement::kDistributed
                                        : train::ExpertPlacement::kReplicated;
}

Status PrintPlan(const train::Recipe& recipe, const TrainFlags& flags, uint32_t threads,
                 uint32_t ranks) {
  const train::MemoryPlan plan = train::PlanMemory(recipe, threads, ranks, PlacementOf(flags));
  const uint64_t tokens = train::TokensBefore(recipe.schedule, recipe.schedule.steps);
  if (flags.json) {
    Json items = Json::object();
    for (const train::PlannedMemory& item : plan.items) items[item.what] = item.bytes;
    const Json json = {{"parameters", plan.parameters},
                       {"muon_parameters", plan.muon_parameters},
                       {"steps", recipe.schedule.steps},
                       {"tokens", tokens},
                       {"bytes", plan.total_bytes()},
                       {"items", items},
                       {"ranks", ranks},
                       {"sent_bytes", plan.sent_bytes}};
    fmt::print("{}\n", json.dump());
    return {};
  }
  fmt::print("{}: {:.2f} million parameters ({:.2f} by Muon), {} steps, {:.1f} million tokens\n",
             recipe.name, static_cast<double>(plan.parameters) * 1e-6,
             static_cast<double>(plan.muon_parameters) * 1e-6, recipe.schedule.steps,
             static_cast<double>(tokens) * 1e-6);
  for (const train::PlannedMemory& item : plan.items) {
    fmt::print("  {:>9}  {}\n", FormatBytes(item.bytes), item.what);
  }
  fmt::print("  {:>9}  in all, with {} threads\n", FormatBytes(plan.total_bytes()), threads);
  if (ranks > 1) {
    fmt::print("  each of {} ranks, at most; one sends up to {} a step\n", ranks,
               FormatBytes(plan.sent_bytes));
  }
  return {};
}

// One line that is overwritten on a terminal; elsewhere a line now and then.
class Reporter {
 public:
  Reporter(uint64_t first, uint64_t total) : first_(first), total_(total) {}

  void Report(const train::StepMetrics& m) {
    std::string text = fmt::format("step {}: loss {:.4f}", m.step + 1, m.loss);
    if (m.validation_loss) text += fmt::format(", validation {:.4f}", *m.validation_loss);
    text += fmt::format(", {:.0f} tokens/s", m.tokens_per_s);
    if (m.mfu > 0) text += fmt::format(", MFU {:.1f} %", 100 * m.mfu);
    const bool terminal = StderrIsTerminal();
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    const uint64_t taken = m.step + 1 - first_;
    const double left =
        seconds / static_cast<double>(taken) * static_cast<double>(total_ - m.step - 1);
    text += fmt::format(", {} left", FormatDuration(left));
    if (terminal && !m.validation_loss) {
      const auto columns = static_cast<size_t>(std::max(TerminalColumns() - 1, 1));
      fmt::print(stderr, "\r\x1b[K{}", text.substr(0, columns));
      std::fflush(stderr);
    } else if (m.validation_loss || taken % kLinesEvery == 0) {
      fmt::print(stderr, "{}{}\n", terminal ? "\r\x1b[K" : "", text);
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr uint64_t kLinesEvery = 10;
  uint64_t first_, total_;
  Clock::time_point start_ = Clock::now();
};

// Whether any rank was asked to stop; all ranks ask at once.
bool StopRequested(comm::Communicator& comm) {
  double stop[1] = {InterruptRequested() ? 1.0 : 0.0};
  comm.ExactSum(stop);
  return stop[0] > 0;
}

Result<bool> TakeSteps(train::Trainer& trainer, const train::Recipe& recipe, uint64_t until,
                       comm::Communicator& comm) {
  const uint64_t end = until > 0 ? std::min(until, recipe.schedule.steps) : recipe.schedule.steps;
  Reporter reporter(trainer.step(), end);
  while (trainer.step() < end || !trainer.can_save()) {
    CACHALOT_TRY(const train::StepMetrics m, trainer.Step());
    if (comm.rank() != 0) {
      // One rank speaks.
    } else if (trainer.step() <= m.step) {
      fmt::print(stderr, "step {}: loss {:.4f} is a spike; back to step {}, routing anticipated\n",
                 m.step + 1, m.loss, trainer.step());
    } else {
      reporter.Report(m);
    }
    if (StopRequested(comm) && trainer.can_save()) break;
  }
  if (StderrIsTerminal() && comm.rank() == 0) fmt::print(stderr, "\r\x1b[K");
  if (!trainer.done()) CACHALOT_RETURN_IF_ERROR(trainer.Save());
  return trainer.step() >= end;
}

train::ExportFormat FormatOf(const std::string& name) {
  if (name == "bf16") return train::ExportFormat::kBFloat16;
  return name == "f32" ? train::ExportFormat::kFloat32 : train::ExportFormat::kReleased;
}

Status Export(train::Trainer& trainer, const train::Recipe& recipe, const std::string& dir,
              const TrainFlags& flags, comm::Communicator& comm) {
  if (recipe.residual != train::ResidualMap::kSinkhorn) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(flags.recipe, ": [residual].map is not \"mhc\"; no V4 engine can run such ",
                        "a model, so it is not exported")};
  }
  CACHALOT_RETURN_IF_ERROR(trainer.Export({.out = dir,
                                           .tokenizer = recipe.data.tokenizer,
                                           .format = FormatOf(flags.format),
                                           .chat = recipe.data.chat}));
  if (comm.rank() == 0) {
    fmt::print("{}: the model of step {}, {}\n", dir, trainer.step(), flags.format);
  }
  return {};
}

// Whether the run is at its end and its model not written yet: rank 0 looks for all, since it is
// also the one that writes.
bool WantsExport(const train::Trainer& trainer, const train::Recipe& recipe,
                 const std::string& model, comm::Communicator& comm) {
  std::error_code ec;
  const bool released = recipe.residual == train::ResidualMap::kSinkhorn;
  double wanted[1] = {trainer.done() && released && !std::filesystem::exists(model, ec) ? 1.0
                                                                                        : 0.0};
  comm.Broadcast(wanted);
  return wanted[0] != 0;
}

// The loss of any checkpoint on what the recipe's last stage evaluates.
Status Evaluate(const train::Recipe& recipe, const TrainFlags& flags, const kernels::Context& ctx) {
  if (recipe.data.validation.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(flags.recipe, ": has no [data].validation to evaluate on")};
  }
  CACHALOT_TRY(auto validation, train::Dataset::Open(recipe.data.validation));
  const train::EvaluationSet set =
      train::EvaluationSetOf(recipe, std::move(validation), recipe.schedule.steps - 1);
  CACHALOT_TRY(const train::CheckpointLoss loss,
               train::EvaluateCheckpoint(flags.evaluate_dir, set, ctx));
  if (flags.json) {
    const Json json = {{"loss", loss.mean()},
                       {"perplexity", std::exp(loss.mean())},
                       {"predictions", loss.targets}};
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print("{}: loss {:.6f}, perplexity {:.4f}, {} predictions\n", flags.evaluate_dir,
               loss.mean(), std::exp(loss.mean()), loss.targets);
  }
  return {};
}

Status RunTrain(const TrainFlags& flags, comm::Communicator& comm) {
  CACHALOT_TRY(const train::Recipe recipe, train::LoadRecipe(flags.recipe));
  const uint32_t threads = flags.threads > 0 ? flags.threads : NumPhysicalCores();
  const uint32_t ranks = flags.ranks > 0 ? flags.ranks : comm.size();
  if (flags.plan) return comm.rank() == 0 ? PrintPlan(recipe, flags, threads, ranks) : Status();
  ThreadPool pool(threads, ThreadPool::kLongSpin);
  const kernels::Context ctx{
      &pool, kernels::Path::kSimd,
      kernels::TargetFromName(flags.target).value_or(kernels::SupportedTargets().front())};
  if (!flags.evaluate_dir.empty()) return Evaluate(recipe, flags, ctx);
  constexpr uint64_t kMaxRecipeBytes = 1 << 20;
  CACHALOT_TRY(const std::string text, io::ReadFile(flags.recipe, kMaxRecipeBytes));
  const std::string out = flags.out.empty() ? StrCat("runs/", recipe.name) : flags.out;
  train::TrainerOptions options{
      .run_dir = out, .recipe_text = text, .comm = &comm, .experts = PlacementOf(flags)};
  if (flags.export_dir.empty()) {
    constexpr size_t kSmallBuffer = size_t{16} << 20;  // memory's speed is not asked for
    options.peak_flop_per_s =
        comm.size() * kernels::MeasureMachineLimits(ctx, kSmallBuffer).f32_flop_per_s;
  }
  CACHALOT_TRY(const auto trainer, train::Trainer::Create(recipe, options, ctx));
  if (!flags.export_dir.empty()) return Export(*trainer, recipe, flags.export_dir, flags, comm);
  if (trainer->step() > 0 && comm.rank() == 0)
    fmt::print(stderr, "{}: going on from step {}\n", out, trainer->step());
  InstallInterruptHandler();
  CACHALOT_TRY(const bool finished, TakeSteps(*trainer, recipe, flags.until, comm));
  if (!finished) {
    return Error{ErrorCode::kCancelled, StrCat("saved at step ", trainer->step(),
                                               "; the same command goes on from there")};
  }
  const std::string model = out + "/model";
  if (WantsExport(*trainer, recipe, model, comm)) {
    return Export(*trainer, recipe, model, flags, comm);
  }
  if (comm.rank() == 0) {
    fmt::print("{}: step {} of {}\n", out, trainer->step(), recipe.schedule.steps);
  }
  return {};
}

// What the rows at distributed experts need grows until the largest batch has been seen: an
// outgrown buffer goes back to the system, where glibc's growing threshold would leave it as a hole
// in the heap (docs/log.md, 2026-12-01).
void ReturnFreedBuffers() {
  constexpr int kBytes = 256 << 10;
  mallopt(M_MMAP_THRESHOLD, kBytes);
}

// A rank that fails takes the others with it: none waits for it. What all ranks run into, as a
// wrong recipe, is said once: while the others hold back, rank 0 says it and ends them.
int TrainOnRanks(const TrainFlags& flags) {
  ReturnFreedBuffers();
  auto comm = flags.mpi ? comm::StartMpi() : comm::SingleRank();
  if (!comm.ok()) return Report(comm.error());
  const Status status = RunTrain(flags, **comm);
  if (status.ok()) return 0;
  const bool stopped = status.error().code == ErrorCode::kCancelled;  // all ranks know
  const bool first = (*comm)->rank() == 0;
  if (!stopped && !first) std::this_thread::sleep_for(std::chrono::seconds(1));
  const int exit_code = stopped && !first ? 0 : Report(status.error());
  if (!stopped && (*comm)->size() > 1) (*comm)->Abort(exit_code);
  return exit_code;
}

}  // namespace

void RegisterTrain(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<TrainFlags>();
  CLI::App* command = app.add_subcommand(
      "train",
      "Train a model from a recipe. Goes on from the newest checkpoint of its folder; Ctrl-C saves "
      "and stops. At the end the model is in RUN/model, ready for cachalot run -m");
  command->add_option("RECIPE", flags->recipe, "A recipe (see recipes/*.toml)")->required();
  command->add_option("--out", flags->out, "Folder of the run (default: runs/NAME)");
  command->add_flag("--plan", flags->plan,
                    "Only say what the run needs: parameters, memory, tokens");
  command
      ->add_option("--ranks", flags->ranks,
                   "With --plan: on so many ranks (a power of two; default: as started)")
      ->check([](const std::string& text) {
        for (uint32_t ranks = 1; ranks <= 4096; ranks *= 2) {
          if (text == std::to_string(ranks)) return std::string();
        }
        return StrCat(text, " is no power of two from 1 to 4096");
      });
  command->add_option("--until", flags->until, "Stop after this step, with a checkpoint");
  command->add_option("--export", flags->export_dir,
                      "Only write the model of the newest checkpoint to this folder");
  command->add_option("--evaluate", flags->evaluate_dir,
                      "Only say the loss of the model in this folder on the recipe's validation "
                      "tokens, as run and serve compute it");
  command
      ->add_option("--format", flags->format, "Of an exported model: FP4 and FP8, or unquantized")
      ->check(CLI::IsMember({"released", "bf16", "f32"}))
      ->capture_default_str();
  command->add_option("--threads", flags->threads, "Threads (default: one a core)")
      ->check(CLI::Range(1u, 1024u));
  command->add_option("--target", flags->target, "Instruction set (default: the best)")
      ->check([](const std::string& name) {
        const auto target = kernels::TargetFromName(name);
        const auto targets = kernels::SupportedTargets();
        const bool known =
            target && std::find(targets.begin(), targets.end(), *target) != targets.end();
        return known ? std::string() : StrCat("this CPU has no target '", name, "'");
      });
  command->add_flag("--mpi", flags->mpi,
                    "Share each step's micro-batches among the ranks that mpirun started (a power "
                    "of two); the model is the same to the bit. All ranks must see the run folder");
  command
      ->add_option(
          "--experts", flags->experts,
          "Routed experts on all ranks, or each on one, which the others send their tokens "
          "to: less memory, more messages, the same bits")
      ->check(CLI::IsMember({"replicated", "distributed"}))
      ->capture_default_str();
  command->add_flag("--json", flags->json,
                    "With --plan: {parameters, steps, tokens, bytes, items, ranks, sent_bytes}; "
                    "with --evaluate: {loss, perplexity, predictions}");
  SetExamples(*command,
              "cachalot train recipes/mini.toml --plan\n"
              "cachalot train recipes/nano.toml\n"
              "cachalot train recipes/nano.toml --export /tmp/nano --format bf16\n"
              "cachalot train recipes/nano.toml --evaluate /tmp/nano\n"
              "mpirun -n 2 cachalot train recipes/mini.toml --mpi --threads 1\n"
              "cachalot train recipes/small.toml --plan --ranks 4 --experts distributed");
  command->callback([flags, &exit_code] {
    if (const int code = TrainOnRanks(*flags); code != 0) exit_code = code;
  });
}

}  // namespace cachalot::cli
