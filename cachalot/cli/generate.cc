// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "cachalot/cli/command.h"
#include "cachalot/cli/expert_stats.h"
#include "cachalot/cli/progress.h"

namespace cachalot::cli {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// What Generate keeps between steps.
struct Run {
  Generation result;
  std::vector<uint32_t> stop_tokens;
  ProgressBar progress{"reading the prompt"};
  std::optional<uint32_t> first_prompt_done;
  std::optional<Clock::time_point> first_token;
  std::optional<model::ExpertStats> experts_then;  // when it came
  bool stopped_by_sink = false;
  bool finished = false;
};

model::ExpertStats ExpertStatsOf(const engine::Engine& engine) {
  return engine.stats().experts.value_or(model::ExpertStats());
}

// True if the sink wants no more.
bool TakeToken(Run& run, uint32_t token, const TokenSink& sink) {
  if (!run.first_token) run.first_token = Clock::now();
  run.progress.Clear();
  // A token that was sampled in the step before a cancellation took effect.
  if (run.stopped_by_sink) return false;
  if (std::find(run.stop_tokens.begin(), run.stop_tokens.end(), token) != run.stop_tokens.end()) {
    return false;
  }
  run.result.tokens.push_back(token);
  return !sink(token);
}

bool TakeEvent(Run& run, const engine::Event& event, const TokenSink& sink) {
  if (event.request != run.result.id) return false;
  run.progress.Update(event.prompt_done, run.result.prompt_tokens);
  run.result.reused_tokens = std::max(run.result.reused_tokens, event.reused);
  const bool enough = event.token.has_value() && TakeToken(run, *event.token, sink);
  if (event.finish.has_value()) {
    run.finished = true;
    run.result.finish = *event.finish;
  }
  return enough;
}

}  // namespace

double Generation::prefill_per_s() const {
  return prefill_seconds > 0 ? (prompt_tokens - reused_tokens) / prefill_seconds : 0;
}

double Generation::decode_per_s() const {
  return tokens.size() > 1 && decode_seconds > 0
             ? static_cast<double>(tokens.size() - 1) / decode_seconds
             : 0;
}

Result<Generation> Generate(engine::Engine& engine, engine::Request request,
                            const TokenSink& sink) {
  Run run;
  run.stop_tokens = request.stop_tokens;
  run.result.prompt_tokens = static_cast<uint32_t>(request.prompt.size());
  const model::ExpertStats before = ExpertStatsOf(engine);
  const Clock::time_point start = Clock::now();
  CACHALOT_TRY(run.result.id, engine.Submit(std::move(request)));
  bool cancelled = false;
  while (!run.finished && engine.HasWork()) {
    if (InterruptRequested() && !cancelled) {
      engine.Cancel(run.result.id);
      cancelled = true;
    }
    CACHALOT_TRY(const auto events, engine.Step());
    for (const engine::Event& event : events) {
      if (event.request == run.result.id && event.error) return *event.error;
      if (!TakeEvent(run, event, sink)) continue;
      run.stopped_by_sink = true;
      engine.Cancel(run.result.id);
    }
    if (run.first_token && !run.experts_then) run.experts_then = ExpertStatsOf(engine);
  }
  if (run.stopped_by_sink) run.result.finish = engine::FinishReason::kStop;
  const Clock::time_point end = Clock::now();
  const Clock::time_point middle = run.first_token.value_or(end);
  run.result.prefill_seconds = Seconds(start, middle);
  run.result.decode_seconds = Seconds(middle, end);
  const model::ExpertStats last = ExpertStatsOf(engine);
  const model::ExpertStats& then = run.experts_then ? *run.experts_then : last;
  run.result.prefill_experts = then.Since(before);
  run.result.decode_experts = last.Since(then);
  return std::move(run.result);
}

std::string FinishName(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return "stop";
    case engine::FinishReason::kLength:
      return "length";
    case engine::FinishReason::kCancelled:
      return "cancelled";
    case engine::FinishReason::kError:
      return "error";
  }
  return "error";
}

std::string FormatStats(const Generation& generation, uint32_t max_context) {
  std::string out = fmt::format("{} prompt tokens", generation.prompt_tokens);
  if (generation.reused_tokens > 0) out += fmt::format(" ({} reused)", generation.reused_tokens);
  out +=
      fmt::format(", {:.1f} tokens/s; {} generated, {:.1f} tokens/s; context {}/{}",
                  generation.prefill_per_s(), generation.tokens.size(), generation.decode_per_s(),
                  generation.prompt_tokens + generation.tokens.size(), max_context);
  if (generation.decode_experts.layers.empty()) return out;
  // The first token of the answer is the prompt's work.
  const uint64_t decoded = generation.tokens.empty() ? 0 : generation.tokens.size() - 1;
  return out + "; " +
         (decoded > 0
              ? FormatExpertStats(generation.decode_experts, decoded, generation.decode_seconds)
              : FormatExpertStats(generation.prefill_experts,
                                  generation.prompt_tokens - generation.reused_tokens,
                                  generation.prefill_seconds));
}

}  // namespace cachalot::cli
