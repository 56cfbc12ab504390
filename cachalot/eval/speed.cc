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

// Sums stored bytes and multiply-adds of the matrices one token uses.
class CostCounter {
 public:
  explicit CostCounter(TokenCost& cost) : cost_(cost) {}

  void Add(const WeightView& w) { AddShare(w, 1, 1); }
  void AddShare(const WeightView& w, uint64_t numerator, uint64_t denominator) {
    cost_.weight_bytes += StoredBytes(w) * numerator / denominator;
    cost_.flops += 2 * uint64_t{w.rows} * w.cols * numerator / denominator;
  }

 private:
  static uint64_t StoredBytes(const WeightView& w) {
    uint64_t bytes = uint64_t{w.rows} * w.row_bytes();
    const uint64_t scale = DTypeBytes(w.scale_dtype);
    if (w.kind == WeightKind::kFP4) bytes += uint64_t{w.rows} * (w.cols / kFP4Block) * scale;
    if (w.kind == WeightKind::kFP8) {
      bytes += uint64_t{(w.rows + kFP8Block - 1) / kFP8Block} *
               ((w.cols + kFP8Block - 1) / kFP8Block) * scale;
    }
    return bytes;
  }
  TokenCost& cost_;
};

void AddLayer(const model::Config& c, const model::LayerWeights& layer, CostCounter& count) {
  for (const WeightView* w :
       {&layer.hc_attn.fn, &layer.hc_ffn.fn, &layer.attn.wq_a, &layer.attn.wq_b, &layer.attn.wkv,
        &layer.attn.wo_a, &layer.attn.wo_b, &layer.ffn.gate, &layer.ffn.shared.w1,
        &layer.ffn.shared.w2, &layer.ffn.shared.w3}) {
    count.Add(*w);
  }
  if (layer.attn.compressor) {
    count.Add(layer.attn.compressor->wkv);
    count.Add(layer.attn.compressor->wgate);
  }
  if (layer.attn.indexer) {
    count.Add(layer.attn.indexer->wq_b);
    count.Add(layer.attn.indexer->weights_proj);
    count.Add(layer.attn.indexer->compressor.wkv);
    count.Add(layer.attn.indexer->compressor.wgate);
  }
  for (const model::ExpertWeights& expert : layer.ffn.experts) {
    for (const WeightView* w : {&expert.w1, &expert.w2, &expert.w3}) {
      // Integer shares of equal experts: A / E of each.
      count.AddShare(*w, c.num_experts_per_tok, c.n_routed_experts);
    }
  }
}

void AddAttention(const model::Config& c, uint32_t ratio, uint32_t context, TokenCost& cost) {
  const kvcache::KvSpec spec = c.kv_spec(KvFormat::kNative, false);
  const uint64_t window = std::min(c.sliding_window, context);
  uint64_t entries = ratio == 0 ? 0 : context / ratio;
  if (ratio == 4) {
    if (entries > c.index_topk) {
      cost.kv_bytes += entries * (c.index_head_dim / 2 + c.index_head_dim / kKeyScaleBlock);
      cost.flops += 2 * entries * c.index_n_heads * c.index_head_dim;
    }
    entries = std::min<uint64_t>(entries, c.index_topk);
  }
  cost.kv_bytes += (window + entries) * spec.window_layout().row_bytes();
  cost.flops += 4 * (window + entries) * c.num_attention_heads * c.head_dim;
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

TokenCost CostPerToken(const model::Weights& weights, uint32_t context) {
  TokenCost cost;
  CostCounter count(cost);
  count.Add(weights.head);
  count.Add(weights.hc_head.fn);
  for (const model::LayerWeights& layer : weights.layers) {
    AddLayer(weights.config, layer, count);
    AddAttention(weights.config, layer.compress_ratio, context, cost);
  }
  return cost;
}

Result<Speed> MeasureSpeed(std::shared_ptr<const model::Weights> weights,
                           const SpeedOptions& options,
                           const std::function<bool(uint64_t, uint64_t)>& progress) {
  ThreadPool pool(options.num_threads);
  Speed speed;
  speed.limits = kernels::MeasureMachineLimits({.pool = &pool, .target = options.target});
  speed.cost = CostPerToken(*weights, options.prompt_tokens);
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
  return speed;
}

}  // namespace cachalot::eval
