// SPDX-License-Identifier: Apache-2.0
// config.json from outside: every lie gets one line that names file, field, found and expected.
#include "cachalot/model/config.h"

#include <gtest/gtest.h>

#include "cachalot/base/json.h"
#include "cachalot/model/inventory.h"

namespace cachalot::model {
namespace {

Json Flash() {
  const auto config = PublishedConfig("flash");
  auto json = ParseJson(ConfigToJson(*config), "flash");
  return *json;
}

void ExpectRefused(const Json& json, const std::string& part,
                   ErrorCode code = ErrorCode::kInvalidArgument) {
  const auto result = ParseConfig(json.dump(), "dir/config.json");
  ASSERT_FALSE(result.ok()) << "expected: " << part;
  const std::string& message = result.error().message;
  EXPECT_EQ(result.error().code, code) << message;
  EXPECT_TRUE(message.starts_with("dir/config.json: ")) << message;
  EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

TEST(ConfigTest, EveryMissingSizeIsNamed) {
  for (const char* field : {"vocab_size",
                            "hidden_size",
                            "num_hidden_layers",
                            "num_attention_heads",
                            "head_dim",
                            "qk_rope_head_dim",
                            "q_lora_rank",
                            "o_groups",
                            "o_lora_rank",
                            "sliding_window",
                            "compress_ratios",
                            "index_n_heads",
                            "index_head_dim",
                            "index_topk",
                            "rope_theta",
                            "compress_rope_theta",
                            "n_routed_experts",
                            "num_experts_per_tok",
                            "moe_intermediate_size",
                            "routed_scaling_factor",
                            "hc_mult",
                            "hc_sinkhorn_iters",
                            "hc_eps",
                            "rms_norm_eps"}) {
    Json json = Flash();
    json.erase(field);
    ExpectRefused(json, std::string(field) + " is missing");
  }
}

TEST(ConfigTest, EveryWrongTypeAndAbsurdSizeIsNamed) {
  for (const char* field : {"vocab_size",
                            "hidden_size",
                            "num_hidden_layers",
                            "num_attention_heads",
                            "head_dim",
                            "qk_rope_head_dim",
                            "q_lora_rank",
                            "o_groups",
                            "o_lora_rank",
                            "sliding_window",
                            "index_n_heads",
                            "index_head_dim",
                            "index_topk",
                            "max_position_embeddings",
                            "n_routed_experts",
                            "num_experts_per_tok",
                            "moe_intermediate_size",
                            "hc_mult",
                            "hc_sinkhorn_iters",
                            "num_hash_layers",
                            "num_nextn_predict_layers",
                            "n_shared_experts"}) {
    for (const Json& bad : {Json("4"), Json(-1), Json(1.5), Json(true), Json::array(),
                            Json(uint64_t{1} << 32), Json(~uint64_t{0})}) {
      Json json = Flash();
      json[field] = bad;
      ExpectRefused(json, std::string(field) + " is ");
    }
  }
  for (const char* field : {"rope_theta", "compress_rope_theta", "routed_scaling_factor", "hc_eps",
                            "rms_norm_eps", "swiglu_limit"}) {
    for (const Json& bad : {Json("1"), Json(0), Json(-1.0), Json(1e300), Json(1e-310)}) {
      Json json = Flash();
      json[field] = bad;
      ExpectRefused(json, std::string(field) + " is ");
    }
  }
}

TEST(ConfigTest, LyingRelationsAreNamed) {
  const auto refused = [](const char* field, const Json& value, const char* part) {
    Json json = Flash();
    json[field] = value;
    ExpectRefused(json, part);
  };
  refused("compress_ratios", {0, 0, 4}, "compress_ratios has 3 entries");
  refused("num_hidden_layers", 60, "compress_ratios has 44 entries");
  refused("compress_ratios", std::vector<int>(44, 8), "compress_ratios has 8 at layer 0");
  refused("compress_ratios", std::vector<int>(44, 4), "compress_ratios has 4 at draft layer 43");
  refused("qk_rope_head_dim", 63, "qk_rope_head_dim is 63");
  refused("qk_rope_head_dim", 512, "qk_rope_head_dim is 512");
  refused("head_dim", 500, "head_dim is 500");
  refused("index_head_dim", 96, "index_head_dim is 96");
  refused("o_groups", 7, "o_groups is 7");
  refused("num_experts_per_tok", 257, "num_experts_per_tok is 257");
  refused("hidden_size", 4100, "FP4 experts need multiples of 32");
  refused("scoring_func", "softmax", "scoring_func is \"softmax\"");
  refused("tie_word_embeddings", true, "tie_word_embeddings is true");
  refused("expert_dtype", "int4", "expert_dtype must be");
  refused("rope_scaling", {{"type", "linear"}}, "rope_scaling");
  refused("rope_scaling", 3, "rope_scaling is no object");
  refused("quantization_config", {{"quant_method", "awq"}}, "quantization_config must be");
  Json wide = Flash();
  wide["num_hidden_layers"] = 1000;
  wide["compress_ratios"] = std::vector<int>(1001, 0);
  wide["n_routed_experts"] = 4096;
  ExpectRefused(wide, "n_routed_experts is 4096 in each of 1000 layers");
}

TEST(ConfigTest, DsparkTargetsAreBounded) {
  auto json = ParseJson(ConfigToJson(*PublishedConfig("flash-0731")), "x");
  ASSERT_TRUE(json.ok());
  (*json)["dspark_target_layer_ids"] = {43};
  ExpectRefused(*json, "dspark_target_layer_ids names layer 43");
  (*json)["dspark_target_layer_ids"] = std::vector<int>(1000, 1);
  ExpectRefused(*json, "dspark_target_layer_ids has 1000 entries");
}

TEST(ConfigTest, OtherArchitecturesAreRefusedByName) {
  Json json = Flash();
  json["model_type"] = "deepseek_v41";
  ExpectRefused(json, "V4.1 is a different architecture", ErrorCode::kVersionMismatch);
  json["model_type"] = "llama";
  ExpectRefused(json, "model_type is 'llama'", ErrorCode::kVersionMismatch);
  json.erase("model_type");
  ExpectRefused(json, "model_type is '(missing)'", ErrorCode::kVersionMismatch);
  EXPECT_FALSE(ParseConfig("[]", "c").ok());
  EXPECT_EQ(ParseConfig("{", "c").error().code, ErrorCode::kDataCorruption);
  EXPECT_FALSE(ParseConfig("", "c").ok());
  EXPECT_EQ(LoadConfig("/nonexistent").error().code, ErrorCode::kNotFound);
}

TEST(ConfigTest, TheFirstUploadWithoutExpertDtypeIsFp4) {
  Json json = Flash();
  json.erase("expert_dtype");
  const auto config = ParseConfig(json.dump(), "c");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(ComputeTotals(*config).bytes, 159609485896u);
}

}  // namespace
}  // namespace cachalot::model
