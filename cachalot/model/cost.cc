// SPDX-License-Identifier: Apache-2.0
#include "cachalot/model/cost.h"

#include <algorithm>
#include <cmath>

namespace cachalot::model {
namespace {

// Sums stored bytes and multiply-adds of the matrices one token uses.
class CostCounter {
 public:
  explicit CostCounter(TokenCost& cost) : cost_(cost) {}

  void Add(const WeightView& w) { AddShare(w, 1, 1); }
  void AddShare(const WeightView& w, uint64_t numerator, uint64_t denominator) {
    const uint64_t bytes = StoredBytes(w) * numerator / denominator;
    cost_.weight_bytes += bytes;
    if (numerator != denominator) cost_.routed_bytes += bytes;
    const uint64_t weights = uint64_t{w.rows} * w.cols * numerator / denominator;
    cost_.flops += 2 * weights;
    const bool routed = numerator != denominator;
    if (w.kind == WeightKind::kFP4) {
      (routed ? cost_.routed_fp4_weights : cost_.fp4_weights) += weights;
    } else if (w.kind == WeightKind::kFP8) {
      (routed ? cost_.routed_fp8_weights : cost_.fp8_weights) += weights;
    }
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

void AddLayer(const Config& c, const LayerWeights& layer, CostCounter& count) {
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
  for (const ExpertWeights& expert : layer.ffn.experts) {
    for (const WeightView* w : {&expert.w1, &expert.w2, &expert.w3}) {
      // Integer shares of equal experts: A / E of each.
      count.AddShare(*w, c.num_experts_per_tok, c.n_routed_experts);
    }
  }
}

void AddAttention(const Config& c, uint32_t ratio, uint32_t context, TokenCost& cost) {
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

// What a token sees grows with its position until top-k cuts it off, so a prompt's flops are summed
// at this many positions in between.
constexpr uint32_t kFlopSamples = 64;

// The dense weights and `distinct` experts a layer, once.
StepCost WeightCost(const Config& config, const TokenCost& token, double distinct) {
  const double share =
      config.num_experts_per_tok == 0 ? 0.0 : distinct / config.num_experts_per_tok;
  const auto scaled = [share](uint64_t routed) {
    return static_cast<uint64_t>(static_cast<double>(routed) * share + 0.5);
  };
  return {.weight_bytes = token.weight_bytes - token.routed_bytes + scaled(token.routed_bytes),
          .fp4_weights = token.fp4_weights + scaled(token.routed_fp4_weights),
          .fp8_weights = token.fp8_weights + scaled(token.routed_fp8_weights)};
}

uint64_t HeadFlops(const Weights& w) { return 2 * uint64_t{w.head.rows} * w.head.cols; }

}  // namespace

TokenCost CostPerToken(const Weights& weights, uint32_t context) {
  TokenCost cost;
  CostCounter count(cost);
  count.Add(weights.head);
  count.Add(weights.hc_head.fn);
  for (const LayerWeights& layer : weights.layers) {
    AddLayer(weights.config, layer, count);
    AddAttention(weights.config, layer.compress_ratio, context, cost);
  }
  return cost;
}

StepCost DecodeStepCost(const Weights& weights, uint32_t context, uint32_t batch,
                        double distinct_experts) {
  const TokenCost token = CostPerToken(weights, context);
  StepCost cost = WeightCost(weights.config, token, distinct_experts);
  cost.kv_bytes = batch * token.kv_bytes;
  cost.flops = batch * token.flops;
  return cost;
}

StepCost PrefillCost(const Weights& weights, uint32_t begin, uint32_t end, uint32_t chunk,
                     double distinct_experts) {
  const uint32_t tokens = end - begin;
  if (tokens == 0) return {};
  const TokenCost last = CostPerToken(weights, end);
  const StepCost once = WeightCost(weights.config, last, distinct_experts);
  const uint64_t steps = (tokens + chunk - 1) / chunk;
  StepCost cost{.weight_bytes = steps * once.weight_bytes,
                .fp4_weights = steps * once.fp4_weights,
                .fp8_weights = steps * once.fp8_weights};
  const uint32_t samples = std::min(kFlopSamples, tokens);
  double flops = 0;
  double kv_bytes = 0;
  for (uint32_t i = 0; i < samples; ++i) {
    const auto at = begin + static_cast<uint32_t>((2 * uint64_t{i} + 1) * tokens / (2 * samples));
    const TokenCost token = CostPerToken(weights, at);
    flops += static_cast<double>(token.flops - HeadFlops(weights));
    kv_bytes += static_cast<double>(token.kv_bytes);
  }
  cost.flops = static_cast<uint64_t>(flops / samples * tokens) + HeadFlops(weights);
  cost.kv_bytes = static_cast<uint64_t>(kv_bytes / samples * static_cast<double>(steps));
  return cost;
}

double DistinctExperts(const Config& config, uint32_t num_tokens) {
  const double experts = config.n_routed_experts;
  if (experts == 0) return 0;
  const double missed = 1.0 - config.num_experts_per_tok / experts;  // by one token
  return experts * (1.0 - std::pow(missed, num_tokens));
}

}  // namespace cachalot::model
