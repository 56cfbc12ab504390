// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/eval_mini.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/progress.h"
#include "cachalot/cli/text_model.h"
#include "cachalot/eval/task_items.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::cli {
namespace {

constexpr uint64_t kMaxItemBytes = uint64_t{1} << 26;
constexpr std::string_view kLookUp = "look-up";
constexpr std::string_view kWindowOnly = "look-up, window only";

struct Bound {
  std::string_view skill;
  double least, most;
};
// What issue 6 asks of models/mini. Window only: chance is 1 of the 64 things a fact can name, and
// of 50 items at that rate 5 or more come out right once in 900 times.
constexpr Bound kBounds[] = {
    {"copying", 0.9, 1},  {"sorting", 0.9, 1},     {"counting", 0.9, 1},
    {"addition", 0.8, 1}, {"subtraction", 0.8, 1}, {"calculator call", 0.9, 1},
    {kLookUp, 0.8, 1},    {kWindowOnly, 0, 0.08},
};

struct MiniFlags {
  EngineFlags engine;
  std::string items;
  uint32_t limit = 0;  // items of a skill; 0: all
  bool json = false;
};

const Bound* BoundOf(std::string_view skill) {
  const auto* found = std::ranges::find(kBounds, skill, &Bound::skill);
  return found == std::end(kBounds) ? nullptr : found;
}

Result<std::unique_ptr<eval::LogitRunner>> MakeRunner(const MiniFlags& flags,
                                                      const TextModel& model, size_t max_tokens,
                                                      bool window_only) {
  eval::RunnerOptions options = flags.engine.ToRunnerOptions(static_cast<uint32_t>(max_tokens));
  options.window_only = window_only;
  return eval::LogitRunner::Create(model.weights, options);
}

// Those that the flags leave, the look-ups once more with nothing but their window at the end.
std::vector<eval::TaskItem> Chosen(std::vector<eval::TaskItem> all, uint32_t limit) {
  std::vector<eval::SkillScore> seen;
  std::vector<eval::TaskItem> chosen, again;
  for (eval::TaskItem& item : all) {
    eval::AddToScores(item, false, seen);
    const auto& count = *std::ranges::find(seen, item.skill, &eval::SkillScore::skill);
    if (limit > 0 && count.items > limit) continue;
    if (item.skill == kLookUp) again.push_back(item);
    chosen.push_back(std::move(item));
  }
  for (eval::TaskItem& item : again) {
    item.skill = kWindowOnly;
    chosen.push_back(std::move(item));
  }
  return chosen;
}

Result<std::vector<eval::SkillScore>> Score(const MiniFlags& flags, const TextModel& model,
                                            const std::vector<eval::TaskItem>& items) {
  size_t longest = 1;
  for (const eval::TaskItem& item : items) longest = std::max(longest, item.ids.size());
  CACHALOT_TRY(const auto runner, MakeRunner(flags, model, longest, false));
  CACHALOT_TRY(const auto window_only, MakeRunner(flags, model, longest, true));
  InstallInterruptHandler();
  ProgressBar progress("scoring");
  std::vector<eval::SkillScore> scores;
  for (size_t i = 0; i < items.size(); ++i) {
    if (InterruptRequested()) {
      return Error{ErrorCode::kCancelled, StrCat("stopped after ", i, " items")};
    }
    eval::LogitRunner& its = items[i].skill == kWindowOnly ? *window_only : *runner;
    CACHALOT_TRY(const bool right, eval::AnswersRight(its, items[i]));
    eval::AddToScores(items[i], right, scores);
    progress.Update(i + 1, items.size());
  }
  progress.Clear();
  return scores;
}

void Print(const MiniFlags& flags, const std::vector<eval::SkillScore>& scores) {
  if (flags.json) {
    Json rows = Json::array();
    for (const eval::SkillScore& s : scores) {
      rows.push_back({{"skill", s.skill},
                      {"items", s.items},
                      {"right", s.right},
                      {"share", s.share()},
                      {"min_tokens_back", s.min_back},
                      {"max_tokens_back", s.max_back}});
    }
    fmt::print("{}\n", Json{{"numerics", flags.engine.numerics}, {"skills", rows}}.dump());
    return;
  }
  fmt::print("{:<22}{:>7}{:>7}{:>9}   {}\n", "skill", "items", "right", "share", "wanted");
  for (const eval::SkillScore& s : scores) {
    std::string wanted;
    if (const Bound* bound = BoundOf(s.skill)) {
      const bool ok = s.share() >= bound->least && s.share() <= bound->most;
      wanted = bound->least > 0 ? fmt::format(">= {:.0f} %", 100 * bound->least)
                                : fmt::format("<= {:.0f} %", 100 * bound->most);
      wanted += ok ? "" : "  MISSED";
    }
    if (s.skill == kLookUp || s.skill == kWindowOnly) {
      wanted += fmt::format("  ({} to {} tokens back)", s.min_back, s.max_back);
    }
    fmt::print("{:<22}{:>7}{:>7}{:>7.1f} %   {}\n", s.skill, s.items, s.right, 100 * s.share(),
               wanted);
  }
}

Status RunMini(const MiniFlags& flags) {
  CACHALOT_TRY(const TextModel model, OpenTextModel(flags.engine));
  const std::string path = flags.items.empty() ? model.dir + "/tasks.jsonl" : flags.items;
  CACHALOT_TRY(const std::string text, io::ReadFile(path, kMaxItemBytes));
  CACHALOT_TRY(auto items, eval::ParseTaskItems(text, path, *model.tokenizer,
                                                model.weights->config.vocab_size));
  if (items.empty()) return Error{ErrorCode::kInvalidArgument, StrCat(path, ": has no items")};
  CACHALOT_TRY(const auto scores, Score(flags, model, Chosen(std::move(items), flags.limit)));
  Print(flags, scores);
  return {};
}

}  // namespace

void AddEvalMini(CLI::App& eval, int& exit_code) {
  auto flags = std::make_shared<MiniFlags>();
  CLI::App* command = eval.add_subcommand(
      "mini",
      "Score a model on held-out tasks: copying, sorting, counting, sums, calculator calls, and "
      "look-up 2k to 4k tokens back, once more without compressed entries. An answer is right if "
      "greedy decoding gives exactly it and then ends");
  AddEngineFlags(*command, flags->engine, /*with_context=*/false);
  command->add_option("--items", flags->items,
                      "JSONL of chats that end with the right answer, each with its \"skill\" "
                      "(default: tasks.jsonl beside the model)");
  command->add_option("--limit", flags->limit, "At most so many items of a skill (default: all)");
  command->add_flag("--json", flags->json,
                    "{numerics, skills: [{skill, items, right, share, min_tokens_back, "
                    "max_tokens_back}]}");
  SetExamples(*command,
              "cachalot eval mini\ncachalot eval mini -m runs/mini/model --items "
              "models/mini/tasks.jsonl --limit 20");
  command->callback([flags, &exit_code] {
    if (const Status status = RunMini(*flags); !status.ok()) exit_code = Report(status.error());
  });
}

}  // namespace cachalot::cli
