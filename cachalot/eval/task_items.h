// SPDX-License-Identifier: Apache-2.0
// Chats with one right answer, and whether a model gives it: what `cachalot eval mini` scores.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/eval/logit_runner.h"
#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot::eval {

// A conversation in the model's tokens, its answer and EOS included.
struct TaskItem {
  std::string skill;
  std::vector<uint32_t> ids;
  uint32_t answer_begin = 0;  // of the first token of the answer, at least 1
  // From the last place in the prompt that says the answer to the answer; 0 if none does.
  uint32_t tokens_back = 0;
};

// Lines of JSONL: a chat as `cachalot render` reads it that ends with the right answer, and
// "skill". kInvalidArgument naming the line; also for token ids beyond `vocab_size`.
Result<std::vector<TaskItem>> ParseTaskItems(std::string_view text, const std::string& name,
                                             const tokenizer::Tokenizer& tokenizer,
                                             uint32_t vocab_size);

// Whether greedy decoding of the prompt gives exactly the answer and EOS: each of its tokens has
// the largest logit after those before it (of equal ones the first counts). One pass over the ids,
// nothing is sampled. `runner` was made for as many tokens.
Result<bool> AnswersRight(LogitRunner& runner, const TaskItem& item);

// Of the items of one skill.
struct SkillScore {
  std::string skill;
  uint32_t items = 0;
  uint32_t right = 0;
  uint32_t min_back = 0, max_back = 0;  // of tokens_back
  double share() const { return items == 0 ? 0.0 : static_cast<double>(right) / items; }
};

// Adds an item to the score of its skill, in order of their first items.
void AddToScores(const TaskItem& item, bool right, std::vector<SkillScore>& scores);

}  // namespace cachalot::eval
