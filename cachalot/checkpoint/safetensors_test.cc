// SPDX-License-Identifier: Apache-2.0
// Headers that lie, one property a test: refused with a message that names tensor, found, expected.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "cachalot/checkpoint/checkpoint.h"
#include "cachalot/checkpoint/header_json.h"

namespace cachalot::checkpoint {
namespace {

std::string File(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + header + std::string(data_bytes, '\x5A');
}

Result<std::vector<TensorInfo>> Parse(const std::string& file) {
  return ParseSafetensors("f", reinterpret_cast<const uint8_t*>(file.data()), file.size());
}

void ExpectRefused(const std::string& file, const std::string& part) {
  const auto result = Parse(file);
  ASSERT_FALSE(result.ok()) << "expected: " << part;
  EXPECT_EQ(result.error().code, ErrorCode::kDataCorruption);
  EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
  EXPECT_EQ(result.error().message.find('\n'), std::string::npos) << result.error().message;
}

constexpr const char* kTwo =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
    R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}})";

TEST(SafetensorsTest, ReadsNamesTypesShapesAndBytes) {
  const std::string file = File(kTwo, 14);
  const auto result = Parse(file);
  ASSERT_TRUE(result.ok()) << result.error().message;
  ASSERT_EQ(result->size(), 2u);
  const TensorInfo& b = (*result)[1];
  EXPECT_EQ(b.name, "b");
  EXPECT_EQ(b.dtype, DType::kBF16);
  EXPECT_EQ(b.shape, std::vector<uint64_t>{3});
  EXPECT_EQ(b.bytes, 6u);
  EXPECT_EQ(b.data, reinterpret_cast<const uint8_t*>(file.data()) + file.size() - 6);
}

TEST(SafetensorsTest, EveryTruncationIsRefused) {
  const std::string file = File(kTwo, 14);
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(Parse(file.substr(0, size)).ok()) << size;
  }
}

TEST(SafetensorsTest, EveryBitFlipOfTheHeaderIsReadOrRefused) {
  const std::string file = File(kTwo, 14);
  for (size_t bit = 0; bit < 8 * (file.size() - 14); ++bit) {
    std::string flipped = file;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const auto result = Parse(flipped);
    if (!result.ok()) continue;
    for (const TensorInfo& t : *result) {
      EXPECT_LE(t.data + t.bytes, reinterpret_cast<const uint8_t*>(flipped.data()) + file.size());
    }
  }
}

std::string One(const std::string& fields, size_t bytes) {
  return File("{\"w\":" + fields + "}", bytes);
}

TEST(SafetensorsTest, LyingHeadersAreRefusedByName) {
  ExpectRefused("", "0 bytes");
  ExpectRefused(std::string(8, '\xFF') + "{}", "header of 18446744073709551615 bytes");
  ExpectRefused("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull");
  ExpectRefused(File("[]", 0), "no JSON object");
  ExpectRefused(File("7", 0), "no JSON object");
  ExpectRefused(File("{\"w\"", 0), "not valid JSON at byte");
  ExpectRefused(File("{\"w\":3}", 0), "'w': is no object");
  ExpectRefused(One("{}", 0), "'w': needs dtype, shape and data_offsets");
  ExpectRefused(One(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})", 3), "truncated");
  ExpectRefused(One(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})", 5), "5 bytes of data");
  ExpectRefused(One(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})", 4), "needs 8");
  ExpectRefused(One(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})", 4), "begins at 4");
  ExpectRefused(One(R"({"dtype":"F32","shape":[1],"data_offsets":[1,5]})", 5), "no holes");
  ExpectRefused(One(R"({"dtype":"F99","shape":[1],"data_offsets":[0,4]})", 4), "\"F99\"");
  ExpectRefused(One(R"({"dtype":7,"shape":[1],"data_offsets":[0,4]})", 4), "dtype is no string");
  ExpectRefused(One(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4), "shape is no list");
  ExpectRefused(One(R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})", 4), "shape is no");
  ExpectRefused(One(R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})", 4), "shape is no list");
  ExpectRefused(One(R"({"dtype":"F32","shape":[[1]],"data_offsets":[0,4]})", 4),
                "shape is no list");
  ExpectRefused(One(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]})", 4),
                "up to 8");
  ExpectRefused(One(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,8]})", 4), "data_offsets");
  ExpectRefused(One(R"({"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]})", 0),
                "overflows");
}

TEST(SafetensorsTest, OverlapDuplicatesAndControlCharactersAreRefused) {
  ExpectRefused(File(R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},)"
                     R"("b":{"dtype":"I8","shape":[4],"data_offsets":[3,7]}})",
                     7),
                "'a' and 'b' overlap");
  ExpectRefused(File(R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},)"
                     R"("a":{"dtype":"I8","shape":[4],"data_offsets":[4,8]}})",
                     8),
                "'a' is listed twice");
  ExpectRefused(File(R"({"a\n\u001b[2J":{}})", 0), "\"a\\n\\u001b[2J\"");
}

TEST(SafetensorsTest, DeepNestingCostsNoStack) {
  EXPECT_FALSE(Parse(File(std::string(1 << 20, '['), 0)).ok());
  const std::string deep = std::string(1 << 20, '[') + std::string(1 << 20, ']');
  EXPECT_TRUE(Parse(File("{\"__metadata__\":{\"x\":" + deep + "}}", 0)).ok());
}

TEST(HuggingFaceNamesTest, FusedExpertsAreSlicedOnlyWhenTheShapeAllows) {
  const std::string bytes(48, '\0');
  const TensorInfo fused{.name = "model.layers.1.mlp.experts.gate_up_proj",
                         .dtype = DType::kI8,
                         .shape = {2, 4, 6},
                         .data = reinterpret_cast<const uint8_t*>(bytes.data()),
                         .bytes = 48};
  std::vector<TensorInfo> out;
  AppendOfficial(fused, out);
  ASSERT_EQ(out.size(), 4u);
  EXPECT_EQ(out[3].name, "layers.1.ffn.experts.1.w3.weight");
  EXPECT_EQ(out[3].data - out[0].data, 36);
  TensorInfo huge = fused;
  huge.shape = {uint64_t{1} << 60, 0, 1};
  huge.bytes = 0;
  out.clear();
  AppendOfficial(huge, out);
  EXPECT_EQ(out.size(), 1u);
}

TEST(HuggingFaceNamesTest, EveryNameOfTheSpecIsTranslated) {
  const std::pair<const char*, const char*> names[] = {
      {"model.embed_tokens.weight", "embed.weight"},
      {"lm_head.weight", "head.weight"},
      {"model.norm.weight", "norm.weight"},
      {"model.hc_head.hc_fn", "hc_head_fn"},
      {"model.hc_head.hc_scale", "hc_head_scale"},
      {"model.layers.3.input_layernorm.weight", "layers.3.attn_norm.weight"},
      {"model.layers.3.post_attention_layernorm.weight", "layers.3.ffn_norm.weight"},
      {"model.layers.3.attn_hc.fn", "layers.3.hc_attn_fn"},
      {"model.layers.3.ffn_hc.base", "layers.3.hc_ffn_base"},
      {"model.layers.3.self_attn.q_a_proj.weight", "layers.3.attn.wq_a.weight"},
      {"model.layers.3.self_attn.q_a_proj.weight_scale_inv", "layers.3.attn.wq_a.scale"},
      {"model.layers.3.self_attn.q_a_norm.weight", "layers.3.attn.q_norm.weight"},
      {"model.layers.3.self_attn.q_b_proj.weight", "layers.3.attn.wq_b.weight"},
      {"model.layers.3.self_attn.kv_proj.weight", "layers.3.attn.wkv.weight"},
      {"model.layers.3.self_attn.kv_norm.weight", "layers.3.attn.kv_norm.weight"},
      {"model.layers.3.self_attn.o_a_proj.weight", "layers.3.attn.wo_a.weight"},
      {"model.layers.3.self_attn.o_b_proj.weight", "layers.3.attn.wo_b.weight"},
      {"model.layers.3.self_attn.sinks", "layers.3.attn.attn_sink"},
      {"model.layers.3.self_attn.compressor.kv_proj.weight", "layers.3.attn.compressor.wkv.weight"},
      {"model.layers.3.self_attn.compressor.gate_proj.weight",
       "layers.3.attn.compressor.wgate.weight"},
      {"model.layers.3.self_attn.compressor.position_bias", "layers.3.attn.compressor.ape"},
      {"model.layers.3.self_attn.compressor.kv_norm.weight",
       "layers.3.attn.compressor.norm.weight"},
      {"model.layers.3.self_attn.compressor.indexer.kv_proj.weight",
       "layers.3.attn.indexer.compressor.wkv.weight"},
      {"model.layers.3.self_attn.compressor.indexer.gate_proj.weight",
       "layers.3.attn.indexer.compressor.wgate.weight"},
      {"model.layers.3.self_attn.compressor.indexer.position_bias",
       "layers.3.attn.indexer.compressor.ape"},
      {"model.layers.3.self_attn.compressor.indexer.kv_norm.weight",
       "layers.3.attn.indexer.compressor.norm.weight"},
      {"model.layers.3.self_attn.compressor.indexer.q_b_proj.weight",
       "layers.3.attn.indexer.wq_b.weight"},
      {"model.layers.3.self_attn.compressor.indexer.scorer.weights_proj.weight",
       "layers.3.attn.indexer.weights_proj.weight"},
      {"model.layers.3.mlp.gate.weight", "layers.3.ffn.gate.weight"},
      {"model.layers.3.mlp.gate.e_score_correction_bias", "layers.3.ffn.gate.bias"},
      {"model.layers.3.mlp.gate.tid2eid", "layers.3.ffn.gate.tid2eid"},
      {"model.layers.3.mlp.shared_experts.gate_proj.weight",
       "layers.3.ffn.shared_experts.w1.weight"},
      {"model.layers.3.mlp.shared_experts.up_proj.weight", "layers.3.ffn.shared_experts.w3.weight"},
      {"model.layers.3.mlp.shared_experts.down_proj.weight_scale_inv",
       "layers.3.ffn.shared_experts.w2.scale"}};
  for (const auto& [hf, official] : names) {
    std::vector<TensorInfo> out;
    AppendOfficial({.name = hf, .shape = {1}}, out);
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(out[0].name, official);
  }
}

TEST(WeightMapTest, OnlyFilesOfTheFolderAreNamed) {
  const auto good = ReadWeightMap(R"({"metadata":{"total_size":1},"weight_map":{"a":"s"}})", "i");
  ASSERT_TRUE(good.ok()) << good.error().message;
  EXPECT_EQ(good->size(), 1u);
  for (const char* text : {"{}", "[]", "3", R"({"weight_map":[]})", R"({"weight_map":3})",
                           R"({"weight_map":{"a":3}})", R"({"weight_map":{"a":{}}})",
                           R"({"weight_map":{"a":"../s"}})", R"({"weight_map":{"a":""}})",
                           R"({"weight_map":{"a":"/s"}})", R"({"weight_map":{"a":"s","a":"t"}})"}) {
    EXPECT_FALSE(ReadWeightMap(text, "i").ok()) << text;
  }
}

}  // namespace
}  // namespace cachalot::checkpoint
