// SPDX-License-Identifier: Apache-2.0
// A small model of every layer kind with random parameters.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/base/temp_dir.h"
#include "cachalot/model/inventory.h"
#include "cachalot/train/parameters.h"

namespace cachalot::train {

inline model::Config SmallConfig() {
  auto config = model::ParseConfig(
      R"({"model_type": "deepseek_v4", "vocab_size": 288, "hidden_size": 64,
          "num_hidden_layers": 3, "num_attention_heads": 2, "head_dim": 128, "qk_rope_head_dim": 64,
          "q_lora_rank": 32, "o_groups": 2, "o_lora_rank": 32, "sliding_window": 16,
          "compress_ratios": [0, 4, 128, 0], "index_n_heads": 2, "index_head_dim": 64,
          "index_topk": 8, "rope_theta": 10000, "compress_rope_theta": 160000,
          "max_position_embeddings": 1024, "n_routed_experts": 4, "num_experts_per_tok": 2,
          "moe_intermediate_size": 32, "num_hash_layers": 1, "routed_scaling_factor": 1.5,
          "swiglu_limit": 10.0, "hc_mult": 4, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6,
          "rms_norm_eps": 1e-6, "num_nextn_predict_layers": 1})",
      "small");
  EXPECT_TRUE(config.ok()) << (config.ok() ? "" : config.error().message);
  return *config;
}

inline ParameterSet RandomSet(const model::Config& config, uint64_t seed) {
  ParameterSet set;
  for (const model::StoredTensor& t : model::ListTensors(config)) {
    const size_t cols = t.shape.back();
    const size_t rows = t.shape.size() == 2 ? t.shape[0] : 1;
    if (t.dtype == DType::kI64) {
      ExpertTable table{t.name, rows, cols, {}};
      for (size_t i = 0; i < rows * cols; ++i) {
        table.ids.push_back(static_cast<uint32_t>((i / cols + i % cols) % config.n_routed_experts));
      }
      set.tables.push_back(std::move(table));
      continue;
    }
    Parameter p{t.name, rows, cols, AlignedBuffer<float>(rows * cols),
                AlignedBuffer<float>(rows * cols)};
    const uint64_t key = CounterRandom(seed, set.parameters.size(), 0);
    for (size_t i = 0; i < p.size(); ++i) {
      const double u = UniformOpen(CounterRandom(key, i, 1)) - 0.5;
      p.value[i] = static_cast<float>(t.name.ends_with("norm.weight") ? 1.0 + 0.1 * u : 0.2 * u);
      p.grad[i] = static_cast<float>(UniformOpen(CounterRandom(key, i, 2)) - 0.5);
    }
    set.parameters.push_back(std::move(p));
  }
  return set;
}

}  // namespace cachalot::train
