// SPDX-License-Identifier: Apache-2.0
// The same weights in the forms they are published in: -Base checkpoints (FP8 experts, float32
// scales) and copies saved again by Hugging Face transformers. [model.md 2, 2.7]
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <filesystem>
#include <map>

#include "cachalot/base/strings.h"
#include "cachalot/model/synth.h"
#include "cachalot/model/weights.h"

namespace cachalot::model {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpoint;
using checkpoint::TensorInfo;

using Loaded = std::shared_ptr<const Weights>;

class VariantsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "cachalot_variants_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { fs::remove_all(dir_); }

  Loaded Synthesize(ExpertDtype experts) {
    auto base = LoadConfig(CACHALOT_SOURCE_DIR "/tests/golden/tiny-flash");
    EXPECT_TRUE(base.ok());
    auto config = SynthConfig(*base, base->num_hidden_layers, 300, /*mtp=*/false);
    EXPECT_TRUE(config.ok());
    config->expert_dtype = experts;
    ThreadPool pool(2);
    const Status status =
        WriteSynthCheckpoint({.config = *config, .out = dir_ + "/official", .seed = 1}, pool, {});
    EXPECT_TRUE(status.ok()) << status.error().message;
    const auto loaded = LoadWeights(dir_ + "/official");
    EXPECT_TRUE(loaded.ok()) << loaded.error().message;
    return *loaded;
  }

  // `tensors` beside the official config, loaded.
  Result<Loaded> Reload(const std::vector<TensorInfo>& tensors) {
    const std::string out = dir_ + "/variant";
    fs::create_directory(out);
    fs::copy_file(dir_ + "/official/config.json", out + "/config.json");
    CACHALOT_RETURN_IF_ERROR(checkpoint::WriteSafetensors(out + "/model.safetensors", tensors));
    return LoadWeights(out);
  }

  // Bytes made by a test, kept until it ends.
  const uint8_t* Keep(std::vector<uint8_t> bytes) {
    kept_.push_back(std::move(bytes));
    return kept_.back().data();
  }

  std::string dir_;
  std::deque<std::vector<uint8_t>> kept_;
};

void ExpectSameMatrix(const WeightView& a, const WeightView& b) {
  ASSERT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.cols, b.cols);
  std::vector<float> x(a.cols), y(b.cols);
  for (uint32_t n = 0; n < a.rows; n += 7) {
    WidenRow(a, n, x);
    WidenRow(b, n, y);
    ASSERT_EQ(x, y) << "row " << n;
  }
}

void ExpectSameExperts(const ExpertWeights& a, const ExpertWeights& b) {
  ExpectSameMatrix(a.w1, b.w1);
  ExpectSameMatrix(a.w2, b.w2);
  ExpectSameMatrix(a.w3, b.w3);
}

void ExpectSame(const Weights& a, const Weights& b) {
  ExpectSameMatrix(a.embed, b.embed);
  ExpectSameMatrix(a.head, b.head);
  EXPECT_EQ(a.norm, b.norm);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t l = 0; l < a.layers.size(); ++l) {
    const LayerWeights &x = a.layers[l], &y = b.layers[l];
    EXPECT_EQ(x.attn_norm, y.attn_norm);
    EXPECT_EQ(x.hc_attn.base, y.hc_attn.base);
    EXPECT_EQ(x.attn.attn_sink, y.attn.attn_sink);
    ExpectSameMatrix(x.attn.wq_b, y.attn.wq_b);
    ExpectSameMatrix(x.attn.wo_a, y.attn.wo_a);
    ASSERT_EQ(x.attn.indexer.has_value(), y.attn.indexer.has_value());
    if (x.attn.indexer) ExpectSameMatrix(x.attn.indexer->wq_b, y.attn.indexer->wq_b);
    if (x.attn.compressor) {
      EXPECT_EQ(x.attn.compressor->ape, y.attn.compressor->ape);
    }
    EXPECT_EQ(x.ffn.tid2eid, y.ffn.tid2eid);
    ExpectSameExperts(x.ffn.shared, y.ffn.shared);
    for (size_t e = 0; e < x.ffn.experts.size(); ++e) {
      ExpectSameExperts(x.ffn.experts[e], y.ffn.experts[e]);
    }
  }
}

// -Base: every scale is a float32, a power of two or not.
TEST_F(VariantsTest, ABaseCheckpointHoldsTheSameNumbers) {
  const Loaded official = Synthesize(ExpertDtype::kFp8);
  std::vector<TensorInfo> tensors = official->storage->tensors();
  size_t converted = 0;
  for (TensorInfo& tensor : tensors) {
    if (tensor.dtype != DType::kF8E8M0) continue;
    std::vector<uint8_t> bytes(4 * tensor.bytes);
    for (size_t i = 0; i < tensor.bytes; ++i) {
      const float scale = std::ldexp(1.0f, tensor.data[i] - 127);
      std::memcpy(&bytes[4 * i], &scale, 4);
    }
    tensor.dtype = DType::kF32;
    tensor.bytes *= 4;
    tensor.data = Keep(std::move(bytes));
    ++converted;
  }
  ASSERT_GT(converted, 50u);
  const auto base = Reload(tensors);
  ASSERT_TRUE(base.ok()) << base.error().message;
  EXPECT_EQ((*base)->layers[0].ffn.experts[0].w1.kind, WeightKind::kFP8);
  EXPECT_EQ((*base)->layers[0].ffn.experts[0].w1.scale_dtype, DType::kF32);
  ExpectSame(*official, **base);
}

// Official name of a tensor inside a layer to the one transformers writes.
std::string HuggingFaceName(std::string name) {
  constexpr std::pair<const char*, const char*> kParts[] = {
      {".attn.indexer.weights_proj.", ".self_attn.compressor.indexer.scorer.weights_proj."},
      {".attn.indexer.wq_b.", ".self_attn.compressor.indexer.q_b_proj."},
      {".attn.indexer.compressor.wkv.", ".self_attn.compressor.indexer.kv_proj."},
      {".attn.indexer.compressor.wgate.", ".self_attn.compressor.indexer.gate_proj."},
      {".attn.indexer.compressor.ape", ".self_attn.compressor.indexer.position_bias"},
      {".attn.indexer.compressor.norm.", ".self_attn.compressor.indexer.kv_norm."},
      {".attn.compressor.wkv.", ".self_attn.compressor.kv_proj."},
      {".attn.compressor.wgate.", ".self_attn.compressor.gate_proj."},
      {".attn.compressor.ape", ".self_attn.compressor.position_bias"},
      {".attn.compressor.norm.", ".self_attn.compressor.kv_norm."},
      {".attn.wq_a.", ".self_attn.q_a_proj."},
      {".attn.q_norm.", ".self_attn.q_a_norm."},
      {".attn.wq_b.", ".self_attn.q_b_proj."},
      {".attn.wkv.", ".self_attn.kv_proj."},
      {".attn.kv_norm.", ".self_attn.kv_norm."},
      {".attn.wo_a.", ".self_attn.o_a_proj."},
      {".attn.wo_b.", ".self_attn.o_b_proj."},
      {".attn.attn_sink", ".self_attn.sinks"},
      {".attn_norm.", ".input_layernorm."},
      {".ffn_norm.", ".post_attention_layernorm."},
      {".hc_attn_", ".attn_hc."},
      {".hc_ffn_", ".ffn_hc."},
      {".ffn.gate.bias", ".mlp.gate.e_score_correction_bias"},
      {".ffn.shared_experts.w1.", ".mlp.shared_experts.gate_proj."},
      {".ffn.shared_experts.w3.", ".mlp.shared_experts.up_proj."},
      {".ffn.shared_experts.w2.", ".mlp.shared_experts.down_proj."},
      {".ffn.gate.", ".mlp.gate."},
  };
  if (name == "embed.weight") return "model.embed_tokens.weight";
  if (name == "head.weight") return "lm_head.weight";
  if (name == "norm.weight") return "model.norm.weight";
  if (name.starts_with("hc_head_")) return "model.hc_head.hc_" + name.substr(8);
  const bool block_scale = name.ends_with(".scale");  // not hc_attn_scale
  for (const auto& [official, hf] : kParts) {
    const size_t at = name.find(official);
    if (at == std::string::npos) continue;
    name.replace(at, std::strlen(official), hf);
    break;
  }
  if (block_scale) name.replace(name.size() - 6, 6, ".weight_scale_inv");
  return "model." + name;
}

TEST_F(VariantsTest, ACopySavedByTransformersHoldsTheSameWeights) {
  const Loaded official = Synthesize(ExpertDtype::kFp4);
  const uint64_t experts = official->config.n_routed_experts;
  std::map<std::string, const TensorInfo*> by_name;
  for (const TensorInfo& tensor : official->storage->tensors()) by_name[tensor.name] = &tensor;
  std::vector<TensorInfo> tensors;
  for (const auto& [name, tensor] : by_name) {
    if (name.find(".ffn.experts.") != std::string::npos) continue;
    tensors.push_back(*tensor);
    tensors.back().name = HuggingFaceName(name);
  }
  // Experts are fused: [E, gate rows then up rows, K] and [E, rows, K], their scales alike.
  for (size_t l = 0; l < official->layers.size(); ++l) {
    const std::string from = StrCat("layers.", l, ".ffn.experts.");
    for (const char* leaf : {".weight", ".scale"}) {
      for (const bool down : {false, true}) {
        const auto parts =
            down ? std::vector<std::string>{".w2"} : std::vector<std::string>{".w1", ".w3"};
        std::vector<uint8_t> bytes;
        const TensorInfo* part = nullptr;
        for (uint64_t e = 0; e < experts; ++e) {
          for (const std::string& w : parts) {
            part = by_name.at(StrCat(from, e, w, leaf));
            bytes.insert(bytes.end(), part->data, part->data + part->bytes);
          }
        }
        TensorInfo fused = *part;
        fused.name =
            StrCat("model.layers.", l, ".mlp.experts.", down ? "down_proj" : "gate_up_proj",
                   std::string_view(leaf) == ".scale" ? "_scale_inv" : "");
        fused.shape = {experts, part->shape[0] * parts.size(), part->shape[1]};
        fused.bytes = bytes.size();
        fused.data = Keep(std::move(bytes));
        tensors.push_back(fused);
      }
    }
  }
  const auto copy = Reload(tensors);
  ASSERT_TRUE(copy.ok()) << copy.error().message;
  ExpectSame(*official, **copy);
}

}  // namespace
}  // namespace cachalot::model
