// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/speed.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>

#include "cachalot/base/rng.h"

namespace cachalot::eval {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kChunk = 512;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double Quantile(std::vector<double> values, double q) {
  const auto at = static_cast<size_t>(q * static_cast<double>(values.size() - 1) + 0.5);
  std::ranges::nth_element(values, values.begin() + static_cast<ptrdiff_t>(at));
  return values[at];
}

// A field of /proc/self/status in bytes ("VmHWM", "RssAnon"); 0 if the system has none.
uint64_t StatusBytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    uint64_t kib = 0;
    if (word == field + ":" && status >> kib) return kib * 1024;
  }
  return 0;
}

// Steps one sequence over random ids.
class Stepper {
 public:
  static Result<std::unique_ptr<Stepper>> Create(std::shared_ptr<const model::Weights> weights,
                                                 const SpeedOptions& options, ThreadPool& pool) {
    auto stepper = std::make_unique<Stepper>();
    stepper->vocab_ = weights->config.vocab_size;
    const auto spec = weights->config.kv_spec(model::KvFormatOf(options.numerics), false);
    const size_t tokens = size_t{options.prompt_tokens} + options.decode_tokens;
    CACHALOT_TRY(stepper->blocks_,
                 kvcache::BlockPool::Create(spec, tokens / kvcache::kBlockTokens + 1));
    CACHALOT_TRY(stepper->sequence_, kvcache::Sequence::Create(*stepper->blocks_));
    CACHALOT_TRY(stepper->forward_,
                 model::Forward::Create(std::move(weights),
                                        {.numerics = options.numerics, .max_step_tokens = kChunk},
                                        {.pool = &pool, .target = options.target}));
    stepper->logits_.resize(stepper->vocab_);
    return stepper;
  }

  void Reset() { sequence_->Reset(); }
  uint64_t kv_bytes() const { return blocks_->bytes_in_use() + blocks_->spec().state_bytes(); }

  // Feeds `count` tokens in chunks, logits of the last one.
  Status Feed(uint32_t count) {
    for (uint32_t done = 0; done < count;) {
      const uint32_t n = std::min(kChunk, count - done);
      ids_.resize(n);
      for (uint32_t& id : ids_) id = static_cast<uint32_t>(CounterRandom(1, 2, next_++) % vocab_);
      CACHALOT_RETURN_IF_ERROR(sequence_->Reserve(n));
      const uint32_t last = n - 1;
      done += n;
      model::ForwardOutputs outputs;
      if (done == count) {
        outputs.logit_rows = {&last, 1};
        outputs.logits = {logits_.data(), 1, vocab_};
      }
      const model::SequenceInput input{.sequence = sequence_.get(), .tokens = ids_};
      CACHALOT_RETURN_IF_ERROR(forward_->Step({&input, 1}, outputs));
      sequence_->Advance(n);
    }
    return {};
  }

 private:
  uint32_t vocab_ = 0;
  uint64_t next_ = 0;
  std::vector<uint32_t> ids_;
  std::vector<float> logits_;
  std::unique_ptr<kvcache::BlockPool> blocks_;
  std::unique_ptr<kvcache::Sequence> sequence_;
  std::unique_ptr<model::Forward> forward_;
};

}  // namespace

Result<Speed> MeasureSpeed(std::shared_ptr<const model::Weights> weights,
                           const SpeedOptions& options,
                           const std::function<bool(uint64_t, uint64_t)>& progress) {
  ThreadPool pool(options.num_threads);
  Speed speed;
  const kernels::Context ctx{.pool = &pool, .target = options.target};
  speed.limits = kernels::MeasureMachineLimits(ctx);
  speed.cost = model::CostPerToken(*weights, options.prompt_tokens);
  CACHALOT_TRY(const auto stepper, Stepper::Create(std::move(weights), options, pool));
  const uint64_t total = options.runs + 1;
  for (uint32_t run = 0; run <= options.runs; ++run) {
    if (progress && !progress(run, total)) return Error{ErrorCode::kCancelled, "stopped"};
    stepper->Reset();
    const auto begin = Clock::now();
    CACHALOT_RETURN_IF_ERROR(stepper->Feed(options.prompt_tokens));
    if (run > 0) speed.prefill_runs_s.push_back(SecondsSince(begin));
    for (uint32_t i = 0; i < options.decode_tokens; ++i) {
      const auto step = Clock::now();
      CACHALOT_RETURN_IF_ERROR(stepper->Feed(1));
      if (run > 0) speed.decode_steps_s.push_back(SecondsSince(step));
    }
  }
  speed.prefill_tokens_per_s = options.prompt_tokens / Quantile(speed.prefill_runs_s, 0.5);
  if (!speed.decode_steps_s.empty()) {
    speed.decode_tokens_per_s = 1.0 / Quantile(speed.decode_steps_s, 0.5);
    speed.decode_p95_ms = 1e3 * Quantile(speed.decode_steps_s, 0.95);
  }
  speed.peak_resident_bytes = StatusBytes("VmHWM");
  speed.private_bytes = StatusBytes("RssAnon");
  speed.kv_bytes_in_use = stepper->kv_bytes();
  // On a machine that others use too, the model can be faster than a limit measured at a bad
  // moment.
  speed.limits = kernels::Best(speed.limits, kernels::MeasureMachineLimits(ctx));
  return speed;
}

}  // namespace cachalot::eval
