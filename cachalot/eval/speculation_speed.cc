// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/speculation_speed.h"

#include "cachalot/eval/bench_stats.h"

namespace cachalot::eval {
namespace {

using engine::EngineStats;
using engine::Speculation;

Result<std::unique_ptr<engine::Engine>> MakeEngine(std::shared_ptr<const model::Weights> weights,
                                                   const SpeculationSpeedOptions& options,
                                                   Speculation speculation) {
  return engine::Engine::Create(std::move(weights), {.numerics = options.numerics,
                                                     .target = options.target,
                                                     .num_threads = options.num_threads,
                                                     .pinning = options.pinning,
                                                     .max_context = options.tokens + 2,
                                                     .speculation = speculation});
}

// What the engine's counters grew by while one answer was written.
struct Run {
  double tokens = 0;
  double steps = 0;
  double drafted = 0;
  double accepted = 0;
  double step_s = 0;
  double forward_s = 0;
  double draft_s = 0;
};

Result<Run> Write(engine::Engine& engine, uint32_t tokens, uint64_t seed) {
  engine::Request request{.prompt = {0}, .max_new_tokens = tokens};
  request.sampling.seed = seed;
  CACHALOT_TRY([[maybe_unused]] const auto id, engine.Submit(std::move(request)));
  const EngineStats before = engine.stats();
  while (engine.HasWork()) CACHALOT_RETURN_IF_ERROR(engine.Step());
  const EngineStats after = engine.stats();
  return Run{.tokens = static_cast<double>(after.generated_tokens - before.generated_tokens),
             .steps = static_cast<double>(after.steps - before.steps),
             .drafted = static_cast<double>(after.drafted_tokens - before.drafted_tokens),
             .accepted = static_cast<double>(after.accepted_tokens - before.accepted_tokens),
             .step_s = after.step_seconds - before.step_seconds,
             .forward_s = after.forward_seconds - before.forward_seconds,
             .draft_s = after.draft_seconds - before.draft_seconds};
}

double Ratio(double a, double b) { return b > 0 ? a / b : 0.0; }

}  // namespace

double SpeculationFigures::formula_tokens_per_s() const {
  return Ratio(1 + acceptance, verify_s + draft_s);
}
double SpeculationFigures::of_formula() const {
  return Ratio(tokens_per_s, formula_tokens_per_s());
}
double SpeculationFigures::gain() const { return Ratio(tokens_per_s, plain_tokens_per_s); }

Result<SpeculationFigures> MeasureSpeculation(std::shared_ptr<const model::Weights> weights,
                                              const SpeculationSpeedOptions& options) {
  CACHALOT_TRY(const auto drafting, MakeEngine(weights, options, Speculation::kOn));
  CACHALOT_TRY(const auto plain, MakeEngine(std::move(weights), options, Speculation::kOff));
  std::vector<double> verify_s, draft_s, rate, plain_rate;
  double drafted = 0;
  double accepted = 0;
  for (uint32_t run = 0; run <= options.runs; ++run) {
    CACHALOT_TRY(const Run with, Write(*drafting, options.tokens, run));
    CACHALOT_TRY(const Run without, Write(*plain, options.tokens, run));
    if (run == 0) continue;
    drafted += with.drafted;
    accepted += with.accepted;
    verify_s.push_back(with.forward_s / with.steps);
    draft_s.push_back(with.draft_s / with.steps);
    rate.push_back(with.tokens / with.step_s);
    plain_rate.push_back(without.tokens / without.step_s);
  }
  return SpeculationFigures{.acceptance = Ratio(accepted, drafted),
                            .verify_s = Quantile(verify_s, 0.5),
                            .draft_s = Quantile(draft_s, 0.5),
                            .tokens_per_s = Quantile(rate, 0.5),
                            .plain_tokens_per_s = Quantile(plain_rate, 0.5)};
}

}  // namespace cachalot::eval
