// SPDX-License-Identifier: Apache-2.0
// The configurations DeepSeek published. [model.md 1.1-1.3]
#include "cachalot/base/strings.h"
#include "cachalot/model/config.h"

namespace cachalot::model {
namespace {

// 4, 128 alternating for layers 2 .. L-2, then 4, then one 0 a draft layer.
std::vector<uint32_t> Ratios(uint32_t first, uint32_t layers, uint32_t draft_layers) {
  std::vector<uint32_t> ratios = {first, first};
  for (uint32_t l = 2; l < layers; ++l) ratios.push_back(l % 2 == 0 ? 4 : 128);
  ratios.insert(ratios.end(), draft_layers, 0);
  return ratios;
}

// What Flash and Pro have in common.
Config Common() {
  Config c;
  c.vocab_size = 129280;
  c.head_dim = 512;
  c.qk_rope_head_dim = 64;
  c.o_lora_rank = 1024;
  c.sliding_window = 128;
  c.index_n_heads = 64;
  c.index_head_dim = 128;
  c.has_yarn = true;
  c.yarn_factor = 16.0f;
  c.max_position_embeddings = 1048576;
  c.num_experts_per_tok = 6;
  c.num_hash_layers = 3;
  c.num_nextn_predict_layers = 1;
  c.quantized = true;
  return c;
}

Config Flash() {
  Config c = Common();
  c.hidden_size = 4096;
  c.num_hidden_layers = 43;
  c.num_attention_heads = 64;
  c.q_lora_rank = 1024;
  c.o_groups = 8;
  c.index_topk = 512;
  c.n_routed_experts = 256;
  c.moe_intermediate_size = 2048;
  c.routed_scaling_factor = 1.5f;
  c.compress_ratios = Ratios(0, c.num_hidden_layers, 1);
  return c;
}

Config Pro() {
  Config c = Common();
  c.hidden_size = 7168;
  c.num_hidden_layers = 61;
  c.num_attention_heads = 128;
  c.q_lora_rank = 1536;
  c.o_groups = 16;
  c.index_topk = 1024;
  c.n_routed_experts = 384;
  c.moe_intermediate_size = 3072;
  c.routed_scaling_factor = 2.5f;
  c.compress_ratios = Ratios(128, c.num_hidden_layers, 1);
  return c;
}

Config WithDspark(Config c, uint32_t markov_rank) {
  const uint32_t layers = c.num_hidden_layers;
  c.dspark_block_size = 5;
  c.dspark_noise_token_id = 128799;
  c.dspark_target_layer_ids = {layers - 3, layers - 2, layers - 1};
  c.dspark_markov_rank = markov_rank;
  c.compress_ratios.insert(c.compress_ratios.end(), 2, 0u);
  return c;
}

Config Base(Config c) {
  c.expert_dtype = ExpertDtype::kFp8;
  c.scales_f32 = true;
  return c;
}

}  // namespace

Result<Config> PublishedConfig(std::string_view name) {
  if (name == "flash") return Flash();
  if (name == "pro") return Pro();
  if (name == "flash-base") return Base(Flash());
  if (name == "pro-base") return Base(Pro());
  if (name == "flash-0731") return WithDspark(Flash(), 256);
  if (name == "pro-0813") return WithDspark(Pro(), 512);
  return Error{ErrorCode::kNotFound,
               StrCat("no published model '", name,
                      "'; known: flash, pro, flash-base, pro-base, flash-0731, pro-0813")};
}

}  // namespace cachalot::model
