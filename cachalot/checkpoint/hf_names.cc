// SPDX-License-Identifier: Apache-2.0
// Checkpoints re-saved by Hugging Face transformers: names and fused experts. [model.md 2.7]
#include <array>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/checkpoint/checkpoint.h"

namespace cachalot::checkpoint {
namespace {

constexpr uint64_t kMaxExperts = 4096;  // as in config.json; bounds what one header entry becomes

using Rename = std::pair<std::string_view, std::string_view>;  // Hugging Face -> official

// Whole prefixes, after `model.`; the first that matches is applied, then the leaves below.
constexpr std::array<Rename, 6> kGlobals = {{
    {"lm_head.", "head."},
    {"model.embed_tokens.", "embed."},
    {"model.norm.", "norm."},
    {"model.hc_head.hc_", "hc_head_"},
    {"model.layers.", "layers."},
    {"model.", ""},
}};

// Parts inside a layer, longer ones before their own prefixes.
constexpr std::array<Rename, 27> kParts = {{
    {".self_attn.compressor.indexer.scorer.weights_proj.", ".attn.indexer.weights_proj."},
    {".self_attn.compressor.indexer.q_b_proj.", ".attn.indexer.wq_b."},
    {".self_attn.compressor.indexer.kv_proj.", ".attn.indexer.compressor.wkv."},
    {".self_attn.compressor.indexer.gate_proj.", ".attn.indexer.compressor.wgate."},
    {".self_attn.compressor.indexer.position_bias", ".attn.indexer.compressor.ape"},
    {".self_attn.compressor.indexer.kv_norm.", ".attn.indexer.compressor.norm."},
    {".self_attn.compressor.kv_proj.", ".attn.compressor.wkv."},
    {".self_attn.compressor.gate_proj.", ".attn.compressor.wgate."},
    {".self_attn.compressor.position_bias", ".attn.compressor.ape"},
    {".self_attn.compressor.kv_norm.", ".attn.compressor.norm."},
    {".self_attn.q_a_proj.", ".attn.wq_a."},
    {".self_attn.q_a_norm.", ".attn.q_norm."},
    {".self_attn.q_b_proj.", ".attn.wq_b."},
    {".self_attn.kv_proj.", ".attn.wkv."},
    {".self_attn.kv_norm.", ".attn.kv_norm."},
    {".self_attn.o_a_proj.", ".attn.wo_a."},
    {".self_attn.o_b_proj.", ".attn.wo_b."},
    {".self_attn.sinks", ".attn.attn_sink"},
    {".input_layernorm.", ".attn_norm."},
    {".post_attention_layernorm.", ".ffn_norm."},
    {".attn_hc.", ".hc_attn_"},
    {".ffn_hc.", ".hc_ffn_"},
    {".mlp.gate.e_score_correction_bias", ".ffn.gate.bias"},
    {".mlp.shared_experts.gate_proj.", ".ffn.shared_experts.w1."},
    {".mlp.shared_experts.up_proj.", ".ffn.shared_experts.w3."},
    {".mlp.shared_experts.down_proj.", ".ffn.shared_experts.w2."},
    {".mlp.", ".ffn."},
}};

void ReplaceFirst(std::string& name, const Rename& rename) {
  const size_t at = name.find(rename.first);
  if (at != std::string::npos) name.replace(at, rename.first.size(), rename.second);
}

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

std::string OfficialName(std::string name) {
  for (const Rename& rename : kGlobals) {
    if (name.starts_with(rename.first)) {
      name.replace(0, rename.first.size(), rename.second);
      break;
    }
  }
  for (const Rename& rename : kParts) {
    if (name.find(rename.first) != std::string::npos) {
      ReplaceFirst(name, rename);
      break;
    }
  }
  constexpr std::string_view kScaleInv = ".weight_scale_inv";
  if (EndsWith(name, kScaleInv))
    name.replace(name.size() - kScaleInv.size(), kScaleInv.size(), ".scale");
  return name;
}

// Rows [begin, begin + count) of expert e of a fused [E, rows, cols] tensor, as an official tensor.
TensorInfo SliceExpert(const TensorInfo& fused, std::string name, uint64_t e, uint64_t begin,
                       uint64_t count) {
  const uint64_t row_bytes = fused.shape[2] * DTypeBytes(fused.dtype);
  TensorInfo out;
  out.name = std::move(name);
  out.dtype = fused.dtype;
  out.shape = {count, fused.shape[2]};
  out.data = fused.data + (e * fused.shape[1] + begin) * row_bytes;
  out.bytes = count * row_bytes;
  return out;
}

}  // namespace

bool IsOfficialName(std::string_view name) {
  return !name.starts_with("model.") && !name.starts_with("lm_head.");
}

void AppendOfficial(TensorInfo info, std::vector<TensorInfo>& out) {
  if (IsOfficialName(info.name)) {
    out.push_back(std::move(info));
    return;
  }
  info.name = OfficialName(std::move(info.name));
  const bool fused = info.shape.size() == 3 && info.shape[0] <= kMaxExperts;
  for (const std::string_view part : {"gate_up_proj", "down_proj"}) {
    const size_t at = info.name.find(StrCat(".ffn.experts.", part));
    if (!fused || at == std::string::npos) continue;
    if (part == "gate_up_proj" && info.shape[1] % 2 != 0) break;
    const std::string prefix = StrCat(info.name.substr(0, at), ".ffn.experts.");
    const std::string leaf =
        EndsWith(info.name, "scale") || EndsWith(info.name, "scale_inv") ? ".scale" : ".weight";
    for (uint64_t e = 0; e < info.shape[0]; ++e) {
      if (part == "down_proj") {
        out.push_back(SliceExpert(info, StrCat(prefix, e, ".w2", leaf), e, 0, info.shape[1]));
        continue;
      }
      // w1 rows first, then w3; their scales are laid out the same way.
      const uint64_t half = info.shape[1] / 2;
      out.push_back(SliceExpert(info, StrCat(prefix, e, ".w1", leaf), e, 0, half));
      out.push_back(SliceExpert(info, StrCat(prefix, e, ".w3", leaf), e, half, half));
    }
    return;
  }
  out.push_back(std::move(info));
}

}  // namespace cachalot::checkpoint
