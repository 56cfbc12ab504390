// SPDX-License-Identifier: Apache-2.0
// Hybrid attention: window, CSA and HCA layers. [V4 2.3; model.md 4]
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cachalot/kernels/attention.h"
#include "cachalot/kernels/compressor.h"
#include "cachalot/kernels/indexer.h"
#include "cachalot/kernels/quantize.h"
#include "cachalot/kernels/rms_norm.h"
#include "cachalot/model/layer.h"

namespace cachalot::model {
namespace {

constexpr uint32_t kCsaRatio = 4;  // the overlapping compressor, with an indexer

// Entries a wave can complete in one layer: kMaxRewind / 4 per stretch of kMaxRewind tokens, and at
// most one for a stretch of fewer than 4 tokens, so never more than one a token.
constexpr size_t kMaxWaveEntries = kAttentionTile;

bool HasLayer(const Config& c, uint32_t ratio) {
  return std::ranges::find(c.compress_ratios, ratio) != c.compress_ratios.end();
}

// Width of the compressor rows of the widest layer kind this model has.
size_t MaxTailWidth(const Config& c) {
  if (HasLayer(c, kCsaRatio)) return 2 * size_t{c.head_dim};
  return HasLayer(c, kvcache::kBlockTokens) ? c.head_dim : 0;
}

const RopeTable& RopeOf(const StepEnv& env, const LayerWeights& w) {
  return w.compress_ratio == 0 ? env.window_rope : env.compressed_rope;
}

// Copies a token's raw compressor row into the ring; ape is indexed by the position in its block.
void StoreTailRow(const kvcache::TailView& tail, uint32_t position, uint32_t ratio,
                  std::span<const float> ape, std::span<const float> k,
                  std::span<const float> gate) {
  const size_t row = size_t{position % tail.capacity} * tail.width;
  const float* bias = ape.data() + size_t{position % ratio} * tail.width;
  std::memcpy(tail.k + row, k.data(), k.size_bytes());
  for (size_t i = 0; i < gate.size(); ++i) tail.gate[row + i] = gate[i] + bias[i];
}

kernels::CompressorTail ConstTail(const kvcache::TailView& tail) {
  return {.k = tail.k, .gate = tail.gate, .capacity = tail.capacity, .width = tail.width};
}

}  // namespace

AttentionHalf::AttentionHalf(const Config& c, const ForwardOptions& o, size_t num_threads) {
  const size_t tile = std::min(o.max_step_tokens, kAttentionTile);
  const size_t index_width = HasLayer(c, kCsaRatio) ? 2 * size_t{c.index_head_dim} : 0;
  const size_t index_heads = HasLayer(c, kCsaRatio) ? c.index_n_heads : 0;
  qr_ = Activation(tile, c.q_lora_rank);
  q_ = Activation(tile, size_t{c.num_attention_heads} * c.head_dim);
  kv_ = Activation(tile, c.head_dim);
  wo_a_out_ = Activation(tile, size_t{c.o_groups} * c.o_lora_rank);
  main_k_ = Activation(tile, MaxTailWidth(c));
  main_gate_ = Activation(tile, MaxTailWidth(c));
  index_k_ = Activation(tile, index_width);
  index_gate_ = Activation(tile, index_width);
  index_q_ = Activation(tile, index_heads * c.index_head_dim);
  index_weights_ = Activation(tile, index_heads);
  entries_ = Activation(kMaxWaveEntries, c.head_dim);
  keys_ = Activation(kMaxWaveEntries, c.index_head_dim);
  emission_cos_ = Activation(kMaxWaveEntries, c.qk_rope_head_dim / 2);
  emission_sin_ = Activation(kMaxWaveEntries, c.qk_rope_head_dim / 2);
  emission_positions_.reserve(kMaxWaveEntries);
  emissions_.reserve(kMaxWaveEntries);
  if (HasLayer(c, kCsaRatio)) {
    selected_.resize(tile * c.index_topk);
    select_scratch_.resize(kernels::SelectScratchWords(tile, c.index_topk, num_threads));
  }
  queries_.reserve(tile);
  index_queries_.reserve(tile);
}

size_t AttentionHalf::scratch_bytes() const {
  size_t bytes = select_scratch_.size() * sizeof(uint64_t);
  for (const Activation* a : {&qr_, &q_, &kv_, &wo_a_out_, &main_k_, &main_gate_, &index_k_,
                              &index_gate_, &index_q_, &index_weights_, &entries_, &keys_}) {
    bytes += a->bytes();
  }
  return bytes;
}

void AttentionHalf::Run(const StepEnv& env, const LayerWeights& w, size_t kv_layer,
                        MatView<const float> x, MatView<float> z) {
  for (const Tile& tile : env.plan.tiles) {
    ProjectTile(env, w, tile, x.Rows(tile.begin, tile.count));
    RotateTile(env, w, tile);
    env.Mark(StepOp::kRope);
    for (uint32_t i = 0; i < tile.num_waves; ++i) {
      const Wave& wave = env.plan.waves[tile.first_wave + i];
      StoreWave(env, w, kv_layer, tile, wave);
      if (w.compress_ratio != 0) EmitEntries(env, w, kv_layer, wave);
      env.Mark(StepOp::kStoreKv);
      if (w.attn.indexer) SelectWave(env, kv_layer, tile, wave);
      env.Mark(StepOp::kIndexer);
      AttendWave(env, w, kv_layer, tile, wave);
      env.Mark(StepOp::kAttention);
    }
    OutputTile(env, w, tile, z.Rows(tile.begin, tile.count));
  }
}

// qr, q, kv, compressor rows, index queries and weights of a tile. [model.md 4.1, 4.2, 4.7, 4.8]
void AttentionHalf::ProjectTile(const StepEnv& env, const LayerWeights& w, const Tile& tile,
                                MatView<const float> x) {
  const Config& c = env.config;
  const size_t n = tile.count;
  const MatView<float> qr = qr_.Rows(n);
  const auto input = env.linear.Prepare(x, InputKind::kQuantized);
  const auto float_input = env.linear.Prepare(x, InputKind::kFloat);
  env.linear.Add(input, w.attn.wq_a, qr);
  env.linear.Add(input, w.attn.wkv, kv_.Rows(n));
  if (w.attn.compressor) {
    const size_t width = w.attn.compressor->wkv.rows;
    env.linear.Add(float_input, w.attn.compressor->wkv, main_k_.Rows(n).Cols(0, width));
    env.linear.Add(float_input, w.attn.compressor->wgate, main_gate_.Rows(n).Cols(0, width));
  }
  if (w.attn.indexer) {
    env.linear.Add(float_input, w.attn.indexer->compressor.wkv, index_k_.Rows(n));
    env.linear.Add(float_input, w.attn.indexer->compressor.wgate, index_gate_.Rows(n));
    env.linear.Add(float_input, w.attn.indexer->weights_proj, index_weights_.Rows(n));
  }
  env.RunProducts(StepOp::kQueryKv);

  kernels::RmsNorm(qr, w.attn.q_norm, c.rms_norm_eps, qr, env.ctx);
  kernels::RmsNorm(kv_.Rows(n), w.attn.kv_norm, c.rms_norm_eps, kv_.Rows(n), env.ctx);
  env.Mark(StepOp::kNorm);
  const auto qr_input = env.linear.Prepare(qr, InputKind::kQuantized);
  env.linear.Add(qr_input, w.attn.wq_b, q_.Rows(n));
  if (w.attn.indexer) env.linear.Add(qr_input, w.attn.indexer->wq_b, index_q_.Rows(n));
  env.RunProducts(StepOp::kQueryUp);
}

void AttentionHalf::RotateTile(const StepEnv& env, const LayerWeights& w, const Tile& tile) {
  const Config& c = env.config;
  const size_t n = tile.count;
  const RopeTable& rope = RopeOf(env, w);
  const MatView<const float> all_cos(rope.cos.buffer.data(), env.plan.tokens.size(),
                                     rope.cos.num_cols);
  const MatView<const float> all_sin(rope.sin.buffer.data(), env.plan.tokens.size(),
                                     rope.sin.num_cols);
  const auto cos = all_cos.Rows(tile.begin, n);
  const auto sin = all_sin.Rows(tile.begin, n);

  // Heads as rows: the per-head norm has no weight. [model.md 4.1.3]
  const MatView<float> heads(q_.buffer.data(), n * c.num_attention_heads, c.head_dim);
  kernels::RmsNorm(heads, {}, c.rms_norm_eps, heads, env.ctx);
  env.Mark(StepOp::kNorm);
  kernels::ApplyRope(heads, c.num_attention_heads, cos, sin, /*inverse=*/false, env.ctx);
  kernels::ApplyRope(kv_.Rows(n), 1, cos, sin, /*inverse=*/false, env.ctx);
  if (!w.attn.indexer) return;

  const MatView<float> index_heads(index_q_.buffer.data(), n * c.index_n_heads, c.index_head_dim);
  kernels::ApplyRope(index_heads, c.index_n_heads, cos, sin, /*inverse=*/false, env.ctx);
  kernels::Hadamard(index_heads, env.ctx);
  if (env.options.numerics != Numerics::kExact) kernels::RoundTripFp4(index_heads, env.ctx);
  const float scale =
      1.0f / std::sqrt(static_cast<float>(c.index_head_dim) * static_cast<float>(c.index_n_heads));
  for (float& weight : std::span(index_weights_.buffer.data(), n * c.index_n_heads)) {
    weight *= scale;
  }
}

// Window rows and raw compressor rows of a wave's tokens.
void AttentionHalf::StoreWave(const StepEnv& env, const LayerWeights& w, size_t kv_layer,
                              const Tile& tile, const Wave& wave) {
  env.ctx.pool->ParallelFor(wave.count, [&](size_t i, size_t) {
    const uint32_t step_row = env.plan.wave_rows[wave.begin + i];
    const size_t row = step_row - tile.begin;
    const StepToken& token = env.plan.tokens[step_row];
    const KvRows window = token.sequence->window(kv_layer);
    kernels::StoreKvEntry(kv_.Rows(tile.count).Row(row), window, token.position % window.capacity);
    if (w.attn.compressor) {
      const size_t width = w.attn.compressor->wkv.rows;
      StoreTailRow(token.sequence->main_tail(kv_layer), token.position, w.compress_ratio,
                   w.attn.compressor->ape, main_k_.Rows(tile.count).Row(row).first(width),
                   main_gate_.Rows(tile.count).Row(row).first(width));
    }
    if (w.attn.indexer) {
      StoreTailRow(token.sequence->index_tail(kv_layer), token.position, w.compress_ratio,
                   w.attn.indexer->compressor.ape, index_k_.Rows(tile.count).Row(row),
                   index_gate_.Rows(tile.count).Row(row));
    }
  });
}

// Compressed entries of the blocks that end in this wave; visible to the token that ends them.
void AttentionHalf::EmitEntries(const StepEnv& env, const LayerWeights& w, size_t kv_layer,
                                const Wave& wave) {
  const uint32_t r = w.compress_ratio;
  emissions_.clear();
  emission_positions_.clear();
  for (uint32_t i = 0; i < wave.count; ++i) {
    const StepToken& token = env.plan.tokens[env.plan.wave_rows[wave.begin + i]];
    if ((token.position + 1) % r != 0) continue;
    if (token.position < token.sequence->replay_end()) continue;  // there already, and right
    const uint32_t j = token.position / r;
    emissions_.push_back({token.sequence, j});
    emission_positions_.push_back(r * j);  // rotated at the first token of the block
  }
  if (emissions_.empty()) return;
  const size_t n = emissions_.size();
  kernels::RopeAngles(env.compressed_rope.frequencies, emission_positions_, emission_cos_.Rows(n),
                      emission_sin_.Rows(n));
  EmitMain(env, w, kv_layer);
  if (w.attn.indexer) EmitIndex(env, w, kv_layer);
}

void AttentionHalf::EmitMain(const StepEnv& env, const LayerWeights& w, size_t kv_layer) {
  const size_t n = emissions_.size();
  const MatView<float> entries = entries_.Rows(n);
  const uint32_t r = w.compress_ratio;
  env.ctx.pool->ParallelFor(n, [&](size_t i, size_t) {
    kernels::PoolBlock(ConstTail(emissions_[i].sequence->main_tail(kv_layer)), emissions_[i].j, r,
                       /*overlap=*/r == kCsaRatio, entries.Row(i), env.ctx);
  });
  kernels::RmsNorm(entries, w.attn.compressor->norm, env.config.rms_norm_eps, entries, env.ctx);
  kernels::ApplyRope(entries, 1, emission_cos_.Rows(n), emission_sin_.Rows(n), /*inverse=*/false,
                     env.ctx);
  for (size_t i = 0; i < n; ++i) {
    const auto slot = emissions_[i].sequence->entry(kv_layer, emissions_[i].j);
    kernels::StoreKvEntry(entries.Row(i), slot.rows, slot.row);
  }
}

void AttentionHalf::EmitIndex(const StepEnv& env, const LayerWeights& w, size_t kv_layer) {
  const size_t n = emissions_.size();
  const MatView<float> keys = keys_.Rows(n);
  env.ctx.pool->ParallelFor(n, [&](size_t i, size_t) {
    kernels::PoolBlock(ConstTail(emissions_[i].sequence->index_tail(kv_layer)), emissions_[i].j,
                       w.compress_ratio, /*overlap=*/true, keys.Row(i), env.ctx);
  });
  kernels::RmsNorm(keys, w.attn.indexer->compressor.norm, env.config.rms_norm_eps, keys, env.ctx);
  kernels::ApplyRope(keys, 1, emission_cos_.Rows(n), emission_sin_.Rows(n), /*inverse=*/false,
                     env.ctx);
  kernels::Hadamard(keys, env.ctx);
  for (size_t i = 0; i < n; ++i) {
    const auto slot = emissions_[i].sequence->entry(kv_layer, emissions_[i].j);
    kernels::StoreIndexKey(keys.Row(i), slot.rows, slot.row);
  }
}

// Top-k compressed entries of every token of the wave. [model.md 4.8]
void AttentionHalf::SelectWave(const StepEnv& env, size_t kv_layer, const Tile& tile,
                               const Wave& wave) {
  const Config& c = env.config;
  index_queries_.clear();
  for (uint32_t i = 0; i < wave.count; ++i) {
    const uint32_t step_row = env.plan.wave_rows[wave.begin + i];
    const size_t row = step_row - tile.begin;
    const StepToken& token = env.plan.tokens[step_row];
    index_queries_.push_back({.q = index_q_.Rows(tile.count).Row(row).data(),
                              .weights = index_weights_.Rows(tile.count).Row(row).data(),
                              .keys = token.sequence->compressed(kv_layer),
                              .num_entries = (token.position + 1) / kCsaRatio,
                              .selected = selected_.data() + row * c.index_topk});
  }
  kernels::SelectEntries({.queries = index_queries_,
                          .heads = c.index_n_heads,
                          .topk = c.index_topk,
                          .scratch = select_scratch_},
                         env.ctx);
}

void AttentionHalf::AttendWave(const StepEnv& env, const LayerWeights& w, size_t kv_layer,
                               const Tile& tile, const Wave& wave) {
  const Config& c = env.config;
  queries_.clear();
  for (uint32_t i = 0; i < wave.count; ++i) {
    const uint32_t step_row = env.plan.wave_rows[wave.begin + i];
    const size_t row = step_row - tile.begin;
    const StepToken& token = env.plan.tokens[step_row];
    float* q = q_.Rows(tile.count).Row(row).data();
    kernels::AttentionQuery query{.q = q,
                                  .out = q,
                                  .position = token.position,
                                  .window_begin = token.sequence->window_begin(),
                                  .window = token.sequence->window(kv_layer)};
    const bool compressed = w.compress_ratio != 0 && !env.options.window_only;
    if (compressed) {
      query.num_compressed = (token.position + 1) / w.compress_ratio;
      query.compressed = token.sequence->compressed(kv_layer);
    }
    if (compressed && w.attn.indexer) {
      query.num_compressed = std::min(query.num_compressed, c.index_topk);
      query.selected = selected_.data() + row * c.index_topk;
    }
    queries_.push_back(query);
  }
  kernels::Attention({.queries = queries_,
                      .num_heads = c.num_attention_heads,
                      .head_dim = c.head_dim,
                      .sliding_window = c.sliding_window,
                      .sink = w.attn.attn_sink,
                      .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim))},
                     env.ctx);
}

// Inverse rope at the query position, grouped wo_a, then wo_b. [model.md 4.6]
void AttentionHalf::OutputTile(const StepEnv& env, const LayerWeights& w, const Tile& tile,
                               MatView<float> z) {
  const Config& c = env.config;
  const size_t n = tile.count;
  const RopeTable& rope = RopeOf(env, w);
  const size_t rope_cols = rope.cos.num_cols;
  const MatView<float> heads(q_.buffer.data(), n * c.num_attention_heads, c.head_dim);
  kernels::ApplyRope(heads, c.num_attention_heads,
                     {rope.cos.buffer.data() + tile.begin * rope_cols, n, rope_cols},
                     {rope.sin.buffer.data() + tile.begin * rope_cols, n, rope_cols},
                     /*inverse=*/true, env.ctx);
  env.Mark(StepOp::kRope);

  const MatView<float> wo_a_out = wo_a_out_.Rows(n);
  const auto input = env.linear.Prepare(q_.Rows(n), InputKind::kBf16);
  const size_t group_width = size_t{c.num_attention_heads} * c.head_dim / c.o_groups;
  for (uint32_t g = 0; g < c.o_groups; ++g) {
    Linear::Input group = input;
    group.x = group.x.Cols(g * group_width, group_width);
    if (group.rounded.data != nullptr) {
      group.rounded = group.rounded.Cols(g * group_width, group_width);
    }
    env.linear.Add(group, w.attn.wo_a.Rows(g * c.o_lora_rank, c.o_lora_rank),
                   wo_a_out.Cols(size_t{g} * c.o_lora_rank, c.o_lora_rank));
  }
  env.RunProducts(StepOp::kOutputDown);
  env.linear.Add(env.linear.Prepare(wo_a_out, InputKind::kQuantized), w.attn.wo_b, z);
  env.RunProducts(StepOp::kOutputUp);
}

}  // namespace cachalot::model
