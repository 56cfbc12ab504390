// SPDX-License-Identifier: Apache-2.0
// cachalot synth: an official-layout checkpoint with random weights.
#include <cstdio>
#include <filesystem>

#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/progress.h"
#include "cachalot/model/inventory.h"
#include "cachalot/model/synth.h"
#include "cachalot/threading/topology.h"

namespace cachalot::cli {
namespace {

struct SynthFlags {
  std::string like = "flash";
  uint32_t layers = 0;
  uint32_t vocab = 0;
  std::string out;
  std::string routing = "uniform";
  bool mtp = false;
  uint64_t seed = 0;
  uint32_t threads = 0;
};

// A published name, or a directory with a config.json.
Result<model::Config> BaseConfig(const std::string& like) {
  std::error_code ec;
  if (std::filesystem::is_directory(like, ec)) return model::LoadConfig(like);
  return model::PublishedConfig(like);
}

Status Synth(const SynthFlags& flags) {
  CACHALOT_TRY(const model::Config base, BaseConfig(flags.like));
  const uint32_t layers = flags.layers > 0 ? flags.layers : base.num_hidden_layers;
  const uint32_t vocab = flags.vocab > 0 ? flags.vocab : base.vocab_size;
  model::SynthOptions options{.out = flags.out,
                              .seed = flags.seed,
                              .routing = flags.routing == "zipf" ? model::SynthRouting::kZipf
                                                                 : model::SynthRouting::kUniform};
  CACHALOT_TRY(options.config, model::SynthConfig(base, layers, vocab, flags.mtp));
  ThreadPool pool(flags.threads > 0 ? flags.threads : NumPhysicalCores());
  InstallInterruptHandler();
  ProgressBar bar("writing " + flags.out);
  CACHALOT_RETURN_IF_ERROR(
      model::WriteSynthCheckpoint(options, pool, [&](uint64_t done, uint64_t total) {
        bar.Update(done >> 20, total >> 20);  // MiB
        return !InterruptRequested();
      }));
  bar.Clear();
  const model::Totals totals = model::ComputeTotals(options.config);
  std::printf("%s: %llu tensors, %s\n", flags.out.c_str(),
              static_cast<unsigned long long>(totals.tensors), FormatBytes(totals.bytes).c_str());
  return {};
}

}  // namespace

void RegisterSynth(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<SynthFlags>();
  CLI::App* command =
      app.add_subcommand("synth", "Write an official-layout checkpoint with random weights");
  command
      ->add_option("--like", flags->like,
                   "Whose dimensions: flash, pro, flash-base, pro-base, or a directory with a "
                   "config.json")
      ->capture_default_str();
  command->add_option("--layers", flags->layers, "The first N layers (default: all)");
  command->add_option("--vocab", flags->vocab, "Vocabulary size (default: the model's)");
  command->add_option("--out", flags->out, "Folder to create")->required();
  command->add_option("--routing", flags->routing, "How experts are chosen")
      ->check(CLI::IsMember({"uniform", "zipf"}))
      ->capture_default_str();
  command->add_flag("--mtp", flags->mtp, "With the MTP block");
  command->add_option("--seed", flags->seed, "Random seed")->capture_default_str();
  command->add_option("--threads", flags->threads, "Threads (default: one a core)")
      ->check(CLI::Range(1u, 1024u));
  SetExamples(*command,
              "cachalot synth --like flash --layers 6 --vocab 16384 --out /tmp/flash6   # 21.7 GB\n"
              "cachalot synth --like models/mini --mtp --out /tmp/mini-random");
  command->callback([flags, &exit_code] {
    if (const Status status = Synth(*flags); !status.ok()) exit_code = Report(status.error());
  });
}

}  // namespace cachalot::cli
