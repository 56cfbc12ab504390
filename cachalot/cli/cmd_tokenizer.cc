// SPDX-License-Identifier: Apache-2.0
// cachalot tokenizer train: a byte-level BPE tokenizer in V4's format, from text.
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/progress.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/tokenizer/bpe_trainer.h"
#include "cachalot/train/documents.h"

namespace cachalot::cli {
namespace {

struct TokenizerFlags {
  std::vector<std::string> files;
  std::string out;
  uint32_t vocab = 0;
  uint64_t min_count = 2;
};

Status CountFiles(const TokenizerFlags& flags, tokenizer::BpeTrainer& trainer) {
  ProgressBar bar("counting");
  std::error_code ec;
  uint64_t total = 0;
  for (const std::string& file : flags.files) {
    const uint64_t size = std::filesystem::file_size(file, ec);
    if (!ec) total += size;
  }
  uint64_t before = 0;
  for (const std::string& file : flags.files) {
    uint64_t at = 0;
    CACHALOT_RETURN_IF_ERROR(
        train::ForEachDocument(file, [&](train::Document&& document, uint64_t bytes) -> Status {
          for (const std::string* text : {&document.prefix, &document.text, &document.suffix}) {
            if (!text->empty()) trainer.Add(*text);
          }
          at = bytes;
          bar.Update((before + at) >> 10, total >> 10);  // KiB
          if (!InterruptRequested()) return {};
          return Error{ErrorCode::kCancelled, "stopped; nothing was written"};
        }));
    before += at;
  }
  bar.Clear();
  return {};
}

Status WriteTokenizer(const std::string& dir, const std::string& json) {
  std::error_code ec;
  std::filesystem::create_directories(dir, ec);
  if (ec) return Error{ErrorCode::kIo, StrCat(dir, ": cannot create: ", ec.message())};
  const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                       {"add_bos_token", false},
                       {"add_eos_token", false}};
  CACHALOT_RETURN_IF_ERROR(
      io::WriteFileAtomic(StrCat(dir, "/tokenizer_config.json"), config.dump(2) + "\n"));
  return io::WriteFileAtomic(StrCat(dir, "/tokenizer.json"), json);
}

Status TrainTokenizer(const TokenizerFlags& flags) {
  if (flags.vocab < tokenizer::MinV4Vocab()) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("--vocab is ", flags.vocab, ", expected at least ", tokenizer::MinV4Vocab(),
                        ": 256 bytes and V4's special tokens")};
  }
  InstallInterruptHandler();
  tokenizer::BpeTrainer trainer;
  CACHALOT_RETURN_IF_ERROR(CountFiles(flags, trainer));
  ProgressBar bar("merging");
  CACHALOT_TRY(const auto merges,
               trainer.Train({.vocab_size = flags.vocab, .min_count = flags.min_count},
                             [&](uint64_t done, uint64_t total) {
                               bar.Update(done, total);
                               return !InterruptRequested();
                             }));
  bar.Clear();
  const uint64_t entries = tokenizer::MinV4Vocab() + merges.size();
  if (entries < flags.vocab) {
    return Error{ErrorCode::kInvalidArgument, StrCat("the text has pairs for ", entries,
                                                     " entries only; give more text, a "
                                                     "--vocab of ",
                                                     entries, ", or a smaller --min-count")};
  }
  CACHALOT_RETURN_IF_ERROR(WriteTokenizer(flags.out, tokenizer::V4TokenizerJson(merges)));
  fmt::print("{}/tokenizer.json: {} entries from {} distinct pieces\n", flags.out, entries,
             trainer.num_pieces());
  return {};
}

}  // namespace

void RegisterTokenizer(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("tokenizer", "Make a tokenizer");
  command->require_subcommand(1);
  auto flags = std::make_shared<TokenizerFlags>();
  CLI::App* train = command->add_subcommand(
      "train",
      "Learn a byte-level BPE tokenizer.json from text, with V4's special tokens and its way of "
      "cutting text. The same text gives the same file");
  train
      ->add_option("FILES", flags->files,
                   "Text, or JSONL by its name .jsonl (fields as in cachalot data build)")
      ->required();
  train->add_option("--vocab", flags->vocab, "Entries, bytes and special tokens included")
      ->required();
  train->add_option("--out", flags->out, "Folder for tokenizer.json")->required();
  train->add_option("--min-count", flags->min_count, "Pairs seen less often are not merged")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  SetExamples(*train,
              "cachalot tokenizer train --vocab 2048 --out runs/nano/tokenizer book.txt\n"
              "cachalot tokenizer train --vocab 16384 --out runs/tok prose.txt chats.jsonl");
  train->callback([flags, &exit_code] {
    if (const Status s = TrainTokenizer(*flags); !s.ok()) exit_code = Report(s.error());
  });
}

}  // namespace cachalot::cli
