// SPDX-License-Identifier: Apache-2.0
// A step: what is fed, the forward pass, what is sampled of it, guesses for the next.
#include <algorithm>

#include "cachalot/base/check.h"
#include "cachalot/engine/engine_internal.h"

namespace cachalot::engine {

// Every decode, then what the budget allows of the prompts.
void Engine::Impl::PlanStep() {
  parts.clear();
  uint32_t rows = 0;
  for (const auto& task : running) {
    if (!task->ready() || !task->decoding()) continue;
    parts.push_back({task.get(), 1 + task->num_drafted, /*decode=*/true});
    rows += parts.back().count;
  }
  PlanPrompts(rows);
}

// An even share for each prompt; what a short one leaves goes to those after it.
void Engine::Impl::PlanPrompts(uint32_t decodes) {
  auto prompts = static_cast<uint32_t>(std::ranges::count_if(
      running, [](const auto& task) { return task->ready() && !task->decoding(); }));
  if (prompts == 0) steps_held = 0;  // those that let steps pass are gone
  if (prompts == 0 || decodes >= options.prefill_chunk || HoldPrompts(decodes)) return;
  uint32_t left = budget.PromptTokens(decodes, options.prefill_chunk - decodes, 1 + steps_held);
  steps_held = 0;
  for (const auto& task : running) {
    if (!task->ready() || task->decoding() || left == 0) continue;
    const uint32_t count = PromptPart(*task, (left + prompts - 1) / prompts);
    parts.push_back({task.get(), count, /*decode=*/false});
    left -= count;
    --prompts;
  }
}

// Whether prompts let this step pass: a later one can take more of them at once, and reads experts
// for all of it. Not if what is left of them fits this one, and never for long.
bool Engine::Impl::HoldPrompts(uint32_t decodes) {
  if (weights->expert_source == nullptr || decodes == 0) return false;
  if (steps_held >= options.share_reads) return false;
  size_t left = 0;
  for (const auto& task : running) {
    if (task->ready() && !task->decoding()) left += task->tokens.size() - task->fed();
  }
  if (left <= budget.PromptTokens(decodes, options.prefill_chunk - decodes)) return false;
  ++steps_held;
  ++stats.held_steps;
  return true;
}

// Tokens of a prompt for one step, cut where its state is to be remembered.
uint32_t Engine::Impl::PromptPart(const Task& task, uint32_t share) const {
  const size_t fed = task.fed();
  size_t count = std::min<size_t>(share, task.tokens.size() - fed);
  if (task.request.cache) {
    const size_t interval = options.checkpoint_interval;
    count = std::min(count, (fed / interval + 1) * interval - fed);
    if (disk != nullptr) {
      count = std::min<size_t>(count, disk->NextSave(static_cast<uint32_t>(fed)) - fed);
    }
  }
  return static_cast<uint32_t>(count);
}

Status Engine::Impl::RunStep() {
  PlanInputs();
  for (const Part& part : parts) {
    CACHALOT_RETURN_IF_ERROR(part.task->sequence->Reserve(part.count));
  }
  const size_t vocab = weights->config.vocab_size;
  const Clock::time_point begin = Clock::now();
  failed.assign(parts.size(), 0);
  CACHALOT_RETURN_IF_ERROR(
      forward->Step(inputs, {.logit_rows = logit_rows,
                             .logits = {logits.data(), logit_rows.size(), vocab},
                             .failed = failed}));
  const double seconds = SecondsSince(begin);
  uint32_t num_tokens = 0;
  for (const Part& part : parts) num_tokens += part.count;
  budget.Measured(num_tokens, seconds);
  stats.forward_seconds += seconds;
  ++stats.steps;
  TakeOutputs();
  const Status drafted = Draft();
  AdvanceParts();
  return drafted;
}

// What each part feeds, and which rows are sampled from: of a decode all, of a prompt its end.
void Engine::Impl::PlanInputs() {
  inputs.clear();
  logit_rows.clear();
  uint32_t row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    Task& task = *part.task;
    std::span<const uint32_t> tokens = std::span(task.tokens).subspan(task.fed());
    if (part.decode) {
      feeds[i][0] = task.tokens.back();
      std::copy_n(task.draft.begin(), part.count - 1, feeds[i].begin() + 1);
      tokens = feeds[i];
    }
    inputs.push_back({.sequence = task.sequence.get(), .tokens = tokens.first(part.count)});
    const bool ends = task.fed() + part.count == task.tokens.size();
    const uint32_t first = part.decode ? 0 : ends ? part.count - 1 : part.count;
    for (uint32_t r = first; r < part.count; ++r) logit_rows.push_back(row + r);
    row += part.count;
  }
}

// Samples where a token is due. The guesses of a decode stay as long as they are what was sampled.
void Engine::Impl::TakeOutputs() {
  const size_t vocab = weights->config.vocab_size;
  float* row = logits.data();
  for (size_t i = 0; i < parts.size(); ++i) {
    Part& part = parts[i];
    Task& task = *part.task;
    if (failed[i] != 0) {
      const bool ends = task.fed() + part.count == task.tokens.size();
      row += (part.decode ? part.count : ends ? 1 : 0) * vocab;
      FailPart(part);
      continue;
    }
    part.kept = part.decode ? 1 : part.count;
    const auto prompt_done =
        static_cast<uint32_t>(std::min(task.fed() + part.kept, task.prompt_size));
    const Event event{.request = task.id, .prompt_done = prompt_done, .reused = task.reused};
    events.push_back(event);
    if (!part.decode) {
      stats.prompt_tokens += part.count;
      if (task.fed() + part.count < task.tokens.size()) continue;
    }
    uint32_t token = SampleRow(task, {row, vocab});
    while (part.kept < part.count && token == feeds[i][part.kept] && !events.back().finish) {
      events.push_back(event);
      token = SampleRow(task, {row + part.kept++ * vocab, vocab});
    }
    part.finished = events.back().finish.has_value();
    row += (part.decode ? part.count : 1) * vocab;
    if (!part.decode) continue;
    gauge.Verified(part.count - 1, part.kept - 1);
    stats.drafted_tokens += part.count - 1;
    stats.accepted_tokens += part.kept - 1;
  }
}

// The request ends: a chunk that was cut short has overwritten window rows that it would need to go
// on from.
void Engine::Impl::FailPart(Part& part) {
  part.finished = true;
  part.task->broken = true;
  Finish(*part.task, FinishReason::kError);
  events.back().error = weights->expert_source->failure();
}

// Guesses for the next step, where they pay.
Status Engine::Impl::Draft() {
  uint32_t decodes = 0;  // of the next step
  for (const Part& part : parts) {
    part.task->num_drafted = 0;
    if (!part.finished && part.end() + 1 == part.task->tokens.size()) ++decodes;
  }
  if (drafter == nullptr) return {};
  if (options.speculation == Speculation::kAuto &&
      !gauge.Worthwhile(budget, std::max(decodes, 1u))) {
    gauge.Skipped();
    return {};
  }
  CollectDraftRequests();
  if (draft_requests.empty()) return {};
  const Clock::time_point begin = Clock::now();
  Chooser chooser(*this);
  CACHALOT_RETURN_IF_ERROR(drafter->Propose(draft_requests, chooser));
  for (size_t i = 0; i < draft_requests.size(); ++i) {
    draft_tasks[i]->num_drafted = draft_requests[i].num_drafted;
  }
  const double seconds = SecondsSince(begin);
  stats.draft_seconds += seconds;
  // A prompt's rows come once; they are not what a draft costs.
  if (std::ranges::all_of(parts, &Part::decode)) gauge.Drafted(seconds);
  return {};
}

// The rows of a prompt take part as far as the draft's window reaches back from its end.
void Engine::Impl::CollectDraftRequests() {
  draft_requests.clear();
  draft_tasks.clear();
  uint32_t row = 0;
  for (const Part& part : parts) {
    Task& task = *part.task;
    const size_t fed = task.fed();
    const uint32_t first_row = row;
    row += part.count;
    const size_t window = std::min<size_t>(task.prompt_size, weights->config.sliding_window);
    const size_t begin = std::max(fed, task.prompt_size - window);
    if (part.finished || begin >= part.end()) continue;
    size_t most = 0;
    if (part.end() + 1 == task.tokens.size()) {
      // A guess takes a position, and the token sampled after it one more.
      most =
          std::min<size_t>(drafter->max_draft_tokens(), task.max_tokens - task.tokens.size() - 1);
    }
    draft_requests.push_back({.first_row = first_row + static_cast<uint32_t>(begin - fed),
                              .next = std::span(task.tokens).subspan(begin + 1, part.end() - begin),
                              .draft = std::span(task.draft).first(most)});
    draft_tasks.push_back(&task);
  }
}

void Engine::Impl::AdvanceParts() {
  for (const Part& part : parts) {
    Task& task = *part.task;
    if (task.broken) continue;
    task.sequence->Advance(part.count);
    const Status rewound = task.sequence->Rewind(part.count - part.kept);
    CACHALOT_CHECK(rewound.ok());  // at most kMaxDraft tokens
    if (part.decode) continue;
    const size_t fed = task.fed();
    const bool end = fed == task.prompt_size;
    if (end || fed % options.checkpoint_interval == 0) {
      Remember(task, end);
    } else if (disk != nullptr && disk->NextSave(static_cast<uint32_t>(fed) - 1) == fed) {
      SaveToDisk(task, false);
    }
  }
}

uint32_t Engine::Impl::SampleLogits(Task& task, std::span<float> row, size_t ahead,
                                    TokenConstraint* constraint) {
  const std::span<const uint32_t> tokens = task.tokens;
  const TokenHistory history{.prompt = tokens.first(task.prompt_size),
                             .generated = tokens.subspan(task.prompt_size)};
  return sampler.Sample(row, history, task.request.sampling, tokens.size() + ahead, constraint);
}

// With the noise that the position will have: at any temperature the guess is what would be
// sampled if the draft's logits were the model's.
uint32_t Engine::Impl::Chooser::Choose(size_t request, uint32_t ahead, std::span<float> logits) {
  return engine_.SampleLogits(*engine_.draft_tasks[request], logits, ahead, nullptr);
}

uint32_t Engine::Impl::SampleRow(Task& task, std::span<float> row) {
  const Clock::time_point begin = Clock::now();
  if (task.request.logprobs) raw_logits.assign(row.begin(), row.end());
  const uint32_t token = SampleLogits(task, row, 0, task.request.constraint);
  if (task.request.constraint != nullptr) {
    const Clock::time_point sampled = Clock::now();
    task.request.constraint->Accept(token);
    accept_seconds += SecondsSince(sampled);
  }
  stats.sample_seconds += SecondsSince(begin);
  task.tokens.push_back(token);
  events.back().token = token;
  ++stats.generated_tokens;
  if (task.request.logprobs) {
    events.back().logprobs = LogprobsOf(raw_logits, token, task.request.top_logprobs);
  }
  if (std::ranges::find(task.request.stop_tokens, token) != task.request.stop_tokens.end()) {
    Finish(task, FinishReason::kStop);
  } else if (task.tokens.size() >= task.max_tokens) {
    Finish(task, FinishReason::kLength);
  }
  return token;
}

}  // namespace cachalot::engine
