// SPDX-License-Identifier: Apache-2.0
// cachalot data: text to token shards, and what is in them.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "cachalot/base/json.h"
#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/progress.h"
#include "cachalot/io/checksum.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/tokenizer/tokenizer.h"
#include "cachalot/train/documents.h"
#include "cachalot/train/packed_reader.h"

namespace cachalot::cli {
namespace {

struct BuildFlags {
  std::string model;
  std::vector<std::string> files;
  std::string out;
  std::string validation;
  double validation_share = 0.01;
  train::SampleOptions samples;
  bool json = false;
};

struct StatFlags {
  std::string dir;
  uint32_t sequence_length = 512;
  bool json = false;
};

// What a build has done so far.
struct Build {
  const BuildFlags& flags;
  const train::SampleMaker& maker;
  train::DatasetWriter& train;
  train::DatasetWriter* validation;
  uint64_t documents = 0;
  uint64_t skipped = 0;

  // By a hash of the number, so that more files do not move documents from one side to the other.
  bool IsValidation(uint64_t index) const {
    return validation != nullptr &&
           UniformOpen(CounterRandom(flags.samples.seed, index, 0x76616c)) < flags.validation_share;
  }

  Status Take(const train::Document& document) {
    const uint64_t index = documents++;
    CACHALOT_TRY(const train::Sample sample, maker.Make(document, index));
    if (sample.ids.size() < 2 ||
        std::find(sample.is_target.begin(), sample.is_target.end(), 1) == sample.is_target.end()) {
      ++skipped;  // a chat without an answer
      return {};
    }
    return (IsValidation(index) ? *validation : train).Add(sample);
  }
};

Status ReadFiles(Build& build) {
  ProgressBar bar("tokenizing");
  std::error_code ec;
  uint64_t total = 0;
  for (const std::string& file : build.flags.files) {
    const uint64_t size = std::filesystem::file_size(file, ec);
    if (!ec) total += size;
  }
  uint64_t before = 0;
  for (const std::string& file : build.flags.files) {
    uint64_t at = 0;
    CACHALOT_RETURN_IF_ERROR(
        train::ForEachDocument(file, [&](train::Document&& document, uint64_t bytes) -> Status {
          if (Status status = build.Take(document); !status.ok()) {
            return Error{status.error().code, StrCat(file, ": ", status.error().message)};
          }
          at = bytes;
          bar.Update((before + at) >> 10, total >> 10);  // KiB
          if (!InterruptRequested()) return {};
          return Error{ErrorCode::kCancelled, "stopped; what was written was removed"};
        }));
    before += at;
  }
  bar.Clear();
  return {};
}

Status FinishBuild(Build& build) {
  CACHALOT_RETURN_IF_ERROR(ReadFiles(build));
  if (build.train.num_samples() == 0) {
    return Error{ErrorCode::kInvalidArgument, "the files hold no sample to train on"};
  }
  if (build.validation != nullptr && build.validation->num_samples() == 0) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("no document of ", build.documents,
                        " fell to the validation set; raise --validation-share or give more, "
                        "shorter documents")};
  }
  if (build.validation != nullptr) CACHALOT_RETURN_IF_ERROR(build.validation->Finish());
  return build.train.Finish();
}

void PrintBuild(const Build& build) {
  const uint64_t validation = build.validation == nullptr ? 0 : build.validation->num_tokens();
  if (build.flags.json) {
    const Json json = {{"documents", build.documents},
                       {"skipped", build.skipped},
                       {"samples", build.train.num_samples()},
                       {"tokens", build.train.num_tokens()},
                       {"validation_tokens", validation}};
    fmt::print("{}\n", json.dump());
    return;
  }
  fmt::print("{}: {} samples, {} tokens\n", build.flags.out, build.train.num_samples(),
             build.train.num_tokens());
  if (build.validation != nullptr) {
    fmt::print("{}: {} samples, {} tokens\n", build.flags.validation,
               build.validation->num_samples(), validation);
  }
  if (build.skipped > 0) fmt::print("{} documents had nothing to learn\n", build.skipped);
}

Status RunBuild(const BuildFlags& flags) {
  CACHALOT_TRY(const std::string dir, ResolveModel(flags.model));
  constexpr uint64_t kMaxTokenizerBytes = uint64_t{1} << 30;
  CACHALOT_TRY(const std::string json,
               io::ReadFile(StrCat(dir, "/tokenizer.json"), kMaxTokenizerBytes));
  CACHALOT_TRY(const auto tokenizer, tokenizer::Tokenizer::Load(dir));
  CACHALOT_TRY(const auto maker, train::SampleMaker::Create(tokenizer, flags.samples));
  const uint64_t checksum = io::Checksum64(json.data(), json.size());
  const auto create = [&](const std::string& out) {
    return train::DatasetWriter::Create(out, tokenizer->vocab_size(), checksum);
  };
  CACHALOT_TRY(train::DatasetWriter train_set, create(flags.out));
  std::optional<train::DatasetWriter> validation;
  if (!flags.validation.empty()) {
    auto created = create(flags.validation);
    if (!created.ok()) {
      train_set.Abandon();
      return created.error();
    }
    validation.emplace(std::move(created).value());
  }
  InstallInterruptHandler();
  Build build{flags, maker, train_set, validation ? &*validation : nullptr};
  const Status status = FinishBuild(build);
  if (!status.ok()) {
    train_set.Abandon();
    if (validation) validation->Abandon();
    return status;
  }
  PrintBuild(build);
  return {};
}

Status RunStat(const StatFlags& flags) {
  CACHALOT_TRY(const auto set, train::Dataset::Open(flags.dir));
  std::vector<uint64_t> lengths;
  uint64_t targets = 0;
  train::Sample sample;
  for (uint64_t s = 0; s < set->num_samples(); ++s) {
    lengths.push_back(set->SampleLength(s));
    sample.ids.clear();
    sample.is_target.clear();
    set->Read(s, 0, lengths.back(), sample);
    targets += static_cast<uint64_t>(
        std::count(sample.is_target.begin(), sample.is_target.end(), uint8_t{1}));
  }
  std::sort(lengths.begin(), lengths.end());
  const auto rank = [&](double share) {
    return lengths[static_cast<size_t>(share * static_cast<double>(lengths.size() - 1))];
  };
  const auto rows = train::PackBestFit(
      set->num_samples(), [&](uint64_t s) { return set->SampleLength(s); }, flags.sequence_length);
  uint64_t packed = 0;
  for (const train::Piece& piece : rows.pieces) packed += piece.length;
  const double fill =
      static_cast<double>(packed) / static_cast<double>(rows.num_rows()) / flags.sequence_length;
  const double learned = static_cast<double>(targets) / static_cast<double>(set->num_tokens());
  if (flags.json) {
    const Json json = {{"samples", set->num_samples()},
                       {"tokens", set->num_tokens()},
                       {"vocab_size", set->vocab_size()},
                       {"shards", set->num_shards()},
                       {"tokenizer_checksum", fmt::format("{:016x}", set->tokenizer_checksum())},
                       {"target_share", learned},
                       {"length_min", lengths.front()},
                       {"length_median", rank(0.5)},
                       {"length_p90", rank(0.9)},
                       {"length_max", lengths.back()},
                       {"sequence_length", flags.sequence_length},
                       {"sequences", rows.num_rows()},
                       {"fill", fill}};
    fmt::print("{}\n", json.dump());
    return {};
  }
  fmt::print("{} samples, {} tokens in {} shards; vocabulary {}, tokenizer {:016x}\n",
             set->num_samples(), set->num_tokens(), set->num_shards(), set->vocab_size(),
             set->tokenizer_checksum());
  fmt::print("lengths: min {}, median {}, 90 % {}, max {}; {:.1f} % of tokens are targets\n",
             lengths.front(), rank(0.5), rank(0.9), lengths.back(), 100 * learned);
  fmt::print("sequences of {}: {}, {:.2f} % full\n", flags.sequence_length, rows.num_rows(),
             100 * fill);
  return {};
}

void AddBuild(CLI::App& command, int& exit_code) {
  auto flags = std::make_shared<BuildFlags>();
  CLI::App* build = command.add_subcommand(
      "build",
      "Tokenize text and JSONL into a dataset. A text file is one sample; a line of a .jsonl file "
      "is an object with text, with messages (a chat that ends with an answer), or with prefix, "
      "suffix and middle");
  AddModelOption(*build, flags->model);
  build->add_option("FILES", flags->files, "Text or .jsonl files")->required();
  build->add_option("--out", flags->out, "Folder to create")->required();
  build->add_option("--validation", flags->validation, "Folder for a share of the documents");
  build->add_option("--validation-share", flags->validation_share, "That share (default: 0.01)")
      ->check(CLI::Range(0.0, 1.0));
  build
      ->add_option("--fill-rate", flags->samples.fill_rate,
                   "Share of plain texts to turn into fill in the middle (default: 0)")
      ->check(CLI::Range(0.0, 1.0));
  build->add_flag("--learn-prompts", flags->samples.learn_prompts,
                  "Learn all tokens of a chat, not only the answers");
  build->add_option("--seed", flags->samples.seed, "Of random choices")->capture_default_str();
  build->add_flag("--json", flags->json, "{documents, skipped, samples, tokens, ...}");
  SetExamples(*build,
              "cachalot data build -m runs/nano/tokenizer --out runs/nano/train book.txt\n"
              "cachalot data build -m runs/tok --out runs/train --validation runs/valid "
              "--fill-rate 0.1 prose.jsonl chats.jsonl");
  build->callback([flags, &exit_code] {
    if (const Status s = RunBuild(*flags); !s.ok()) exit_code = Report(s.error());
  });
}

void AddStat(CLI::App& command, int& exit_code) {
  auto flags = std::make_shared<StatFlags>();
  CLI::App* stat = command.add_subcommand("stat", "Check a dataset and say what is in it");
  stat->add_option("DIR", flags->dir, "A folder cachalot data build made")->required();
  stat->add_option("--sequence-length", flags->sequence_length,
                   "Pack for sequences of this many tokens (default: 512)")
      ->check(CLI::Range(2, 1 << 20));
  stat->add_flag("--json", flags->json, "{samples, tokens, length_median, fill, ...}");
  SetExamples(*stat, "cachalot data stat runs/nano/train --sequence-length 2048");
  stat->callback([flags, &exit_code] {
    if (const Status s = RunStat(*flags); !s.ok()) exit_code = Report(s.error());
  });
}

}  // namespace

void RegisterData(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("data", "Training data");
  command->require_subcommand(1);
  AddBuild(*command, exit_code);
  AddStat(*command, exit_code);
}

}  // namespace cachalot::cli
