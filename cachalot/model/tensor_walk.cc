// SPDX-License-Identifier: Apache-2.0
// Names, shapes and formats of every tensor. [model.md 2.1-2.4]
#include "cachalot/base/strings.h"
#include "cachalot/model/tensor_source.h"

namespace cachalot::model {
namespace {

constexpr uint32_t kCsaRatio = 4;

HcWeights WalkHc(const Config& c, TensorSource& in, const std::string& prefix, uint32_t rows,
                 uint32_t num_scales) {
  return {.fn = in.Matrix(prefix + "_fn", Storage::kF32, rows, c.hc_mult * c.hidden_size),
          .base = in.Vector(prefix + "_base", Storage::kF32, {rows}),
          .scale = in.Vector(prefix + "_scale", Storage::kF32, {num_scales})};
}

HcWeights WalkHcHead(const Config& c, TensorSource& in, const std::string& prefix) {
  return WalkHc(c, in, prefix + "hc_head", c.hc_mult, 1);
}

CompressorWeights WalkCompressor(const Config& c, TensorSource& in, const std::string& prefix,
                                 uint32_t ratio, uint32_t head_size) {
  const uint32_t width = ratio == kCsaRatio ? 2 * head_size : head_size;
  return {.wkv = in.Matrix(prefix + "wkv.weight", Storage::kBf16, width, c.hidden_size),
          .wgate = in.Matrix(prefix + "wgate.weight", Storage::kBf16, width, c.hidden_size),
          .ape = in.Vector(prefix + "ape", Storage::kF32, {ratio, width}),
          .norm = in.Vector(prefix + "norm.weight", Storage::kBf16, {head_size})};
}

AttentionWeights WalkAttention(const Config& c, TensorSource& in, const std::string& prefix,
                               uint32_t ratio) {
  const uint32_t q_rows = c.num_attention_heads * c.head_dim;
  const uint32_t o_rows = c.o_groups * c.o_lora_rank;
  AttentionWeights w;
  w.attn_sink = in.Vector(prefix + "attn_sink", Storage::kF32, {c.num_attention_heads});
  w.wq_a = in.Matrix(prefix + "wq_a.weight", Storage::kDense, c.q_lora_rank, c.hidden_size);
  w.q_norm = in.Vector(prefix + "q_norm.weight", Storage::kBf16, {c.q_lora_rank});
  w.wq_b = in.Matrix(prefix + "wq_b.weight", Storage::kDense, q_rows, c.q_lora_rank);
  w.wkv = in.Matrix(prefix + "wkv.weight", Storage::kDense, c.head_dim, c.hidden_size);
  w.kv_norm = in.Vector(prefix + "kv_norm.weight", Storage::kBf16, {c.head_dim});
  w.wo_a = in.Matrix(prefix + "wo_a.weight", Storage::kDense, o_rows, q_rows / c.o_groups);
  w.wo_b = in.Matrix(prefix + "wo_b.weight", Storage::kDense, c.hidden_size, o_rows);
  if (ratio != 0) {
    w.compressor = WalkCompressor(c, in, prefix + "compressor.", ratio, c.head_dim);
  }
  if (ratio == kCsaRatio) {
    const std::string indexer = prefix + "indexer.";
    w.indexer = {
        .wq_b = in.Matrix(indexer + "wq_b.weight", Storage::kDense,
                          c.index_n_heads * c.index_head_dim, c.q_lora_rank),
        .weights_proj = in.Matrix(indexer + "weights_proj.weight", Storage::kBf16, c.index_n_heads,
                                  c.hidden_size),
        .compressor = WalkCompressor(c, in, indexer + "compressor.", ratio, c.index_head_dim)};
  }
  return w;
}

ExpertWeights WalkExpert(const Config& c, TensorSource& in, const std::string& prefix,
                         Storage storage, uint32_t width) {
  return {.w1 = in.Matrix(prefix + "w1.weight", storage, width, c.hidden_size),
          .w3 = in.Matrix(prefix + "w3.weight", storage, width, c.hidden_size),
          .w2 = in.Matrix(prefix + "w2.weight", storage, c.hidden_size, width)};
}

FfnWeights WalkFfn(const Config& c, TensorSource& in, const std::string& prefix, bool hash) {
  FfnWeights w;
  w.gate = in.Matrix(prefix + "gate.weight", Storage::kBf16, c.n_routed_experts, c.hidden_size);
  if (hash) {
    w.tid2eid = in.ExpertTable(prefix + "gate.tid2eid", c.vocab_size, c.num_experts_per_tok,
                               c.n_routed_experts);
  } else {
    w.gate_bias = in.Vector(prefix + "gate.bias", Storage::kF32, {c.n_routed_experts});
  }
  w.experts.reserve(c.n_routed_experts);
  for (uint32_t e = 0; e < c.n_routed_experts; ++e) {
    w.experts.push_back(WalkExpert(c, in, StrCat(prefix, "experts.", e, "."), Storage::kExpert,
                                   c.moe_intermediate_size));
  }
  w.shared =
      WalkExpert(c, in, prefix + "shared_experts.", Storage::kDense, c.shared_intermediate_size());
  return w;
}

LayerWeights WalkLayer(const Config& c, TensorSource& in, const std::string& prefix, uint32_t ratio,
                       bool hash) {
  LayerWeights w;
  w.compress_ratio = ratio;
  w.attn_norm = in.Vector(prefix + "attn_norm.weight", Storage::kBf16, {c.hidden_size});
  w.ffn_norm = in.Vector(prefix + "ffn_norm.weight", Storage::kBf16, {c.hidden_size});
  w.hc_attn = WalkHc(c, in, prefix + "hc_attn", c.mix_rows(), 3);
  w.hc_ffn = WalkHc(c, in, prefix + "hc_ffn", c.mix_rows(), 3);
  w.attn = WalkAttention(c, in, prefix + "attn.", ratio);
  w.ffn = WalkFfn(c, in, prefix + "ffn.", hash);
  return w;
}

}  // namespace

Weights WalkMain(const Config& c, TensorSource& in) {
  Weights w;
  w.config = c;
  w.embed = in.Matrix("embed.weight", Storage::kBf16, c.vocab_size, c.hidden_size);
  w.norm = in.Vector("norm.weight", Storage::kBf16, {c.hidden_size});
  w.head = in.Matrix("head.weight", Storage::kBf16, c.vocab_size, c.hidden_size);
  w.hc_head = WalkHcHead(c, in, "");
  w.layers.reserve(c.num_hidden_layers);
  for (uint32_t l = 0; l < c.num_hidden_layers; ++l) {
    w.layers.push_back(
        WalkLayer(c, in, StrCat("layers.", l, "."), c.compress_ratios[l], c.is_hash_layer(l)));
  }
  return w;
}

MtpWeights WalkMtp(const Config& c, TensorSource& in) {
  const std::string prefix = "mtp.0.";
  MtpWeights w;
  w.layer = WalkLayer(c, in, prefix, /*ratio=*/0, /*hash=*/false);
  w.e_proj = in.Matrix(prefix + "e_proj.weight", Storage::kDense, c.hidden_size, c.hidden_size);
  w.h_proj = in.Matrix(prefix + "h_proj.weight", Storage::kDense, c.hidden_size, c.hidden_size);
  w.enorm = in.Vector(prefix + "enorm.weight", Storage::kBf16, {c.hidden_size});
  w.hnorm = in.Vector(prefix + "hnorm.weight", Storage::kBf16, {c.hidden_size});
  w.norm = in.Vector(prefix + "norm.weight", Storage::kBf16, {c.hidden_size});
  w.hc_head = WalkHcHead(c, in, prefix);
  return w;
}

void WalkDspark(const Config& c, TensorSource& in) {
  const uint32_t stages = c.num_draft_layers();
  for (uint32_t s = 0; s < stages; ++s) {
    WalkLayer(c, in, StrCat("mtp.", s, "."), /*ratio=*/0, /*hash=*/false);
  }
  const auto targets = static_cast<uint32_t>(c.dspark_target_layer_ids.size());
  in.Matrix("mtp.0.main_proj.weight", Storage::kDense, c.hidden_size, targets * c.hidden_size);
  in.Vector("mtp.0.main_norm.weight", Storage::kBf16, {c.hidden_size});
  const std::string last = StrCat("mtp.", stages - 1, ".");
  in.Vector(last + "norm.weight", Storage::kBf16, {c.hidden_size});
  WalkHcHead(c, in, last);
  const std::string markov = last + "markov_head.";
  in.Matrix(markov + "markov_w1.weight", Storage::kBf16, c.vocab_size, c.dspark_markov_rank);
  in.Matrix(markov + "markov_w2.weight", Storage::kBf16, c.vocab_size, c.dspark_markov_rank);
  in.Matrix(last + "confidence_head.proj.weight", Storage::kBf16, 1,
            c.hidden_size + c.dspark_markov_rank);
}

}  // namespace cachalot::model
