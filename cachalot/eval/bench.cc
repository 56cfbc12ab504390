// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/bench.h"

#include <algorithm>

#include "cachalot/base/strings.h"
#include "cachalot/eval/bench_stats.h"
#include "cachalot/eval/bench_stepper.h"

namespace cachalot::eval {
namespace {

// Prompt tokens read behind a filled cache: one tile of the attention half, since a chunk at a
// million tokens scores 512 x 262,144 keys a layer.
constexpr uint32_t kTokensAtDepth = 128;

// Counts what is done and keeps the most memory seen.
class Session {
 public:
  Session(const BenchOptions& options, const BenchProgress& progress)
      : options_(options), progress_(progress) {
    for (const uint32_t context : options.contexts) {
      total_ += context <= options.fill_beyond ? (options.runs + 1) * (context / 512 + 2)
                                               : 2 * options.runs + context / 65536;
    }
    for (const uint32_t batch : options.batches) total_ += batch > 1 ? 2 + batch / 4 : 0;
  }

  Status Done(uint64_t units) {
    done_ = std::min(total_, done_ + units);
    if (progress_ && !progress_(done_, total_)) return Error{ErrorCode::kCancelled, "stopped"};
    return {};
  }

  void Look(const Stepper& stepper, Bench& bench) {
    const MemoryUse now = ReadMemoryUse();
    bench.memory.peak_bytes = now.peak_bytes;
    bench.memory.mapped_bytes = std::max(bench.memory.mapped_bytes, now.mapped_bytes);
    bench.memory.private_bytes = std::max(bench.memory.private_bytes, now.private_bytes);
    bench.kv_bytes_in_use = std::max(bench.kv_bytes_in_use, stepper.kv_bytes());
  }

  const BenchOptions& options() const { return options_; }
  uint32_t rounds() const { return (options_.decode_tokens + kRoundTokens - 1) / kRoundTokens; }

 private:
  const BenchOptions& options_;
  const BenchProgress& progress_;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
};

Status CheckOptions(const model::Config& config, const BenchOptions& options) {
  const uint32_t positions = config.max_position_embeddings;
  if (options.contexts.empty() || options.contexts.back() > positions) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("contexts: up to ", positions, " tokens, the model's positions")};
  }
  if (options.batches.empty() || std::ranges::count(options.batches, 0u) > 0) {
    return Error{ErrorCode::kInvalidArgument, "batches: at least one, each of at least 1"};
  }
  return {};
}

// Where decoding at `context` starts: there, or as far before the last position as it needs.
uint32_t DecodeStart(const model::Config& config, uint32_t context) {
  return std::min(context, config.max_position_embeddings - kRoundTokens);
}

model::ExpertStats StreamStats(const Stepper& stepper) {
  const model::ExpertSource* source = stepper.weights().expert_source.get();
  return source == nullptr ? model::ExpertStats() : source->stats();
}

// Runs decode rounds and adds them to `figures`, profile and experts included.
Status DecodeInto(Stepper& stepper, uint32_t rounds, ExpertCounter& experts,
                  DecodeFigures& figures) {
  experts.Clear();
  stepper.profile().Clear();
  const model::ExpertStats before = StreamStats(stepper);
  CACHALOT_RETURN_IF_ERROR(stepper.Decode(rounds, figures.step_s));
  figures.experts.Add(StreamStats(stepper).Since(before));
  figures.profile.Add(stepper.profile());
  figures.distinct_experts = experts.mean();
  return {};
}

void FinishDecode(const Stepper& stepper, DecodeFigures& figures) {
  figures.cost = model::DecodeStepCost(stepper.weights(), figures.context, figures.batch,
                                       figures.distinct_experts);
}

// One pass over all contexts that are read: the prompt grows from one to the next, so the longest
// costs what it would alone. `warm_up` only reads the first.
Status ReadContexts(Stepper& stepper, Session& session, bool warm_up, Bench& bench) {
  const BenchOptions& options = session.options();
  CACHALOT_RETURN_IF_ERROR(stepper.MakeSequences(1));
  double seconds = 0;
  model::StepProfile profile;
  for (size_t i = 0; i < options.contexts.size(); ++i) {
    const uint32_t context = DecodeStart(stepper.weights().config, options.contexts[i]);
    if (context > options.fill_beyond || (warm_up && i > 0)) break;
    stepper.experts().Clear();
    stepper.profile().Clear();
    const model::ExpertStats before = StreamStats(stepper);
    CACHALOT_TRY(const double part_s, stepper.Read(context));
    const model::ExpertStats part = StreamStats(stepper).Since(before);
    seconds += part_s;
    profile.Add(stepper.profile());
    PrefillFigures& prefill = bench.prefill[i];
    DecodeFigures& decode = bench.decode[i];
    prefill.tokens = context;
    prefill.distinct_experts = stepper.experts().mean();
    std::vector<double> ignored;
    if (warm_up) return stepper.Decode(1, ignored);
    prefill.run_s.push_back(seconds);
    prefill.profile.Add(profile);
    prefill.experts.Add(part);
    CACHALOT_RETURN_IF_ERROR(DecodeInto(stepper, session.rounds(), stepper.experts(), decode));
    session.Look(stepper, bench);
    CACHALOT_RETURN_IF_ERROR(session.Done(context / 512 + 2));
  }
  return {};
}

// A context that is filled: its last tokens are read `runs` times, then it decodes.
Status FillContext(Stepper& stepper, Session& session, size_t i, Bench& bench) {
  const BenchOptions& options = session.options();
  const uint32_t context = DecodeStart(stepper.weights().config, options.contexts[i]);
  PrefillFigures& prefill = bench.prefill[i];
  DecodeFigures& decode = bench.decode[i];
  decode.filled = true;
  prefill.tokens = std::min({kTokensAtDepth, options.chunk, context});
  CACHALOT_RETURN_IF_ERROR(stepper.MakeSequences(1));
  CACHALOT_RETURN_IF_ERROR(stepper.Fill(context - prefill.tokens));
  CACHALOT_RETURN_IF_ERROR(session.Done(context / 65536));
  stepper.Save();
  for (uint32_t run = 0; run <= options.runs; ++run) {
    stepper.experts().Clear();
    stepper.profile().Clear();
    CACHALOT_TRY(const double seconds, stepper.Read(context));
    prefill.distinct_experts = stepper.experts().mean();
    if (run > 0) {  // the first one touches new memory
      prefill.run_s.push_back(seconds);
      prefill.profile.Add(stepper.profile());
      CACHALOT_RETURN_IF_ERROR(DecodeInto(stepper, session.rounds(), stepper.experts(), decode));
      session.Look(stepper, bench);
      CACHALOT_RETURN_IF_ERROR(session.Done(2));
    }
    CACHALOT_RETURN_IF_ERROR(stepper.Restore());
  }
  return {};
}

Status RunBatch(Stepper& stepper, Session& session, uint32_t batch, Bench& bench) {
  const uint32_t context =
      DecodeStart(stepper.weights().config, session.options().contexts.front());
  DecodeFigures figures{.context = context, .batch = batch, .filled = true};
  CACHALOT_RETURN_IF_ERROR(stepper.MakeSequences(batch));
  CACHALOT_RETURN_IF_ERROR(stepper.Fill(context));
  std::vector<double> ignored;
  CACHALOT_RETURN_IF_ERROR(stepper.Decode(1, ignored));
  CACHALOT_RETURN_IF_ERROR(DecodeInto(stepper, session.rounds(), stepper.experts(), figures));
  FinishDecode(stepper, figures);
  session.Look(stepper, bench);
  bench.decode.push_back(std::move(figures));
  return session.Done(2 + batch / 4);
}

// Its engines come and go between two looks at the memory: they are not part of it.
Status RunSpeculation(std::shared_ptr<const model::Weights> weights, const BenchOptions& options,
                      Bench& bench) {
  if (!weights->mtp || weights->expert_source != nullptr) return {};
  CACHALOT_TRY(bench.speculation,
               MeasureSpeculation(std::move(weights), {.numerics = options.numerics,
                                                       .target = options.target,
                                                       .num_threads = options.num_threads,
                                                       .pinning = options.pinning,
                                                       .tokens = 2 * options.decode_tokens,
                                                       .runs = options.runs}));
  return {};
}

Status RunContexts(Stepper& stepper, Session& session, Bench& bench) {
  const BenchOptions& options = session.options();
  for (const uint32_t context : options.contexts) {
    bench.prefill.push_back({.context = context});
    bench.decode.push_back({.context = context});
  }
  for (uint32_t run = 0; run <= options.runs; ++run) {
    CACHALOT_RETURN_IF_ERROR(ReadContexts(stepper, session, /*warm_up=*/run == 0, bench));
  }
  for (size_t i = 0; i < options.contexts.size(); ++i) {
    const uint32_t context = DecodeStart(stepper.weights().config, options.contexts[i]);
    if (context > options.fill_beyond) {
      CACHALOT_RETURN_IF_ERROR(FillContext(stepper, session, i, bench));
    }
    PrefillFigures& prefill = bench.prefill[i];
    prefill.context = context;
    prefill.cost = model::PrefillCost(stepper.weights(), context - prefill.tokens, context,
                                      options.chunk, prefill.distinct_experts);
    FinishDecode(stepper, bench.decode[i]);
  }
  return {};
}

}  // namespace

double DecodeFigures::tokens_per_s() const {
  const double median = Quantile(step_s, 0.5);
  return median > 0 ? batch / median : 0.0;
}

double PrefillFigures::tokens_per_s() const {
  const double median = Quantile(run_s, 0.5);
  return median > 0 ? tokens / median : 0.0;
}

Result<Bench> RunBench(std::shared_ptr<const model::Weights> weights, const BenchOptions& options,
                       const BenchProgress& progress) {
  CACHALOT_RETURN_IF_ERROR(CheckOptions(weights->config, options));
  Bench bench;
  Session session(options, progress);
  CACHALOT_RETURN_IF_ERROR(session.Done(0));
  bench.read_bytes_per_s_by_threads =
      kernels::ReadBandwidths(options.target, options.num_threads, options.limit_buffer_bytes);
  ThreadPool pool(PlaceWorkers(options.num_threads, options.pinning));
  const kernels::Context ctx{.pool = &pool, .target = options.target};
  bench.limits = kernels::MeasureMachineLimits(ctx, options.limit_buffer_bytes);
  bench.widening = kernels::MeasureWidening(ctx);
  {
    CACHALOT_TRY(const auto stepper, Stepper::Create(weights, options, pool));
    bench.scratch_bytes = stepper->scratch_bytes();
    CACHALOT_RETURN_IF_ERROR(RunContexts(*stepper, session, bench));
    for (const uint32_t batch : options.batches) {
      if (batch > 1) CACHALOT_RETURN_IF_ERROR(RunBatch(*stepper, session, batch, bench));
    }
  }
  CACHALOT_RETURN_IF_ERROR(RunSpeculation(std::move(weights), options, bench));
  // On a machine that others use too, the model can be faster than a limit measured at a bad
  // moment.
  bench.limits =
      kernels::Best(bench.limits, kernels::MeasureMachineLimits(ctx, options.limit_buffer_bytes));
  for (const double rate : bench.read_bytes_per_s_by_threads) {
    bench.limits.read_bytes_per_s = std::max(bench.limits.read_bytes_per_s, rate);
  }
  return bench;
}

}  // namespace cachalot::eval
