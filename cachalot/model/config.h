// SPDX-License-Identifier: Apache-2.0
// config.json of a DeepSeek-V4 checkpoint. Field names are the released ones. [model.md 1]
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/kvcache/kv_cache.h"

namespace cachalot::model {

enum class ExpertDtype : uint8_t { kFp4, kFp8, kUnquantized };
// What follows the main layers.
enum class DraftKind : uint8_t { kNone, kMtp, kDspark };

struct Config {
  std::string model_type = "deepseek_v4";
  uint32_t vocab_size = 0;                // V
  uint32_t hidden_size = 0;               // D
  uint32_t num_hidden_layers = 0;         // L
  uint32_t num_attention_heads = 0;       // H
  uint32_t head_dim = 0;                  // d
  uint32_t qk_rope_head_dim = 0;          // rd
  uint32_t q_lora_rank = 0;               // qr
  uint32_t o_groups = 0;                  // G
  uint32_t o_lora_rank = 0;               // R, per group
  uint32_t sliding_window = 0;            // W
  std::vector<uint32_t> compress_ratios;  // main layers, then draft layers (0)
  uint32_t index_n_heads = 0;
  uint32_t index_head_dim = 0;
  uint32_t index_topk = 0;
  float rope_theta = 10000.0f;
  float compress_rope_theta = 160000.0f;
  bool has_yarn = false;  // rope_scaling present; only with compress_rope_theta
  float yarn_factor = 1.0f;
  float yarn_beta_fast = 32.0f;
  float yarn_beta_slow = 1.0f;
  uint32_t yarn_original_max_position_embeddings = 65536;
  uint32_t max_position_embeddings = 0;
  uint32_t n_routed_experts = 0;  // E
  uint32_t n_shared_experts = 1;
  uint32_t num_experts_per_tok = 0;    // A
  uint32_t moe_intermediate_size = 0;  // I
  uint32_t num_hash_layers = 0;
  float routed_scaling_factor = 1.0f;
  float swiglu_limit = 10.0f;
  uint32_t hc_mult = 4;  // M
  uint32_t hc_sinkhorn_iters = 20;
  float hc_eps = 1e-6f;
  float rms_norm_eps = 1e-6f;
  uint32_t num_nextn_predict_layers = 0;
  ExpertDtype expert_dtype = ExpertDtype::kFp4;
  bool quantized = false;   // quantization_config present: dense matrices are FP8
  bool scales_f32 = false;  // -Base: every .scale is F32
  uint32_t bos_token_id = 0;
  uint32_t eos_token_id = 1;
  // DSpark generation (0731, 0813); 0 when absent.
  uint32_t dspark_block_size = 0;
  uint32_t dspark_noise_token_id = 0;
  uint32_t dspark_markov_rank = 0;
  std::vector<uint32_t> dspark_target_layer_ids;

  // Draft layers (stages) that follow the main ones: 1 (MTP), 3 (DSpark) or 0.
  DraftKind draft_kind() const {
    if (dspark_block_size > 0) return DraftKind::kDspark;
    return num_nextn_predict_layers > 0 ? DraftKind::kMtp : DraftKind::kNone;
  }
  uint32_t num_draft_layers() const;
  uint32_t mix_rows() const { return (2 + hc_mult) * hc_mult; }
  uint32_t shared_intermediate_size() const { return moe_intermediate_size * n_shared_experts; }
  bool is_hash_layer(uint32_t layer) const { return layer < num_hash_layers; }

  // KvSpec of the main layers and, with `with_mtp`, of one MTP layer after them.
  kvcache::KvSpec kv_spec(KvFormat format, bool with_mtp) const;
};

// Parses and validates config.json text. `name` starts every message. kVersionMismatch for another
// model_type (V4.1 is named), kInvalidArgument with field, found and expected otherwise. Sizes are
// bounded so that no product of them overflows 64 bits.
Result<Config> ParseConfig(std::string_view json, std::string_view name);
Result<Config> LoadConfig(const std::string& dir);  // dir/config.json

// The published configurations: "flash", "pro", "flash-base", "flash-0731", "pro-0813".
Result<Config> PublishedConfig(std::string_view name);

// config.json text that ParseConfig reads back to the same Config (synth, train).
std::string ConfigToJson(const Config& config);

}  // namespace cachalot::model
