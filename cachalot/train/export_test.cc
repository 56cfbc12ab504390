// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/export.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "cachalot/model/weights.h"
#include "cachalot/numeric/formats.h"
#include "cachalot/tokenizer/tokenizer.h"
#include "cachalot/tokenizer/v4_format.h"
#include "cachalot/train/test_support.h"
#include "cachalot/train/weight_format.h"

namespace cachalot::train {
namespace {

kernels::Context Ctx(ThreadPool& pool) {
  return {&pool, kernels::Path::kSimd, kernels::SupportedTargets()[0]};
}

// A bound weight, widened.
std::vector<float> Widened(const WeightView& w) {
  std::vector<float> out(size_t{w.rows} * w.cols);
  for (size_t n = 0; n < w.rows; ++n) {
    WidenRow(w, n, std::span<float>(out).subspan(n * w.cols, w.cols));
  }
  return out;
}

std::vector<float> Values(const ParameterSet& set, std::string_view name) {
  const Parameter* p = set.Find(name);
  EXPECT_NE(p, nullptr) << name;
  return {p->value.span().begin(), p->value.span().end()};
}

struct Exported {
  Exported(ExportFormat format, const TempDir& dir) : set(RandomSet(SmallConfig(), 3)) {
    ThreadPool pool(2);
    const Status status =
        ExportCheckpoint(SmallConfig(), set, {.out = dir / "out", .format = format}, Ctx(pool));
    EXPECT_TRUE(status.ok()) << status.error().message;
    auto loaded = model::LoadWeights(dir / "out");
    EXPECT_TRUE(loaded.ok()) << (loaded.ok() ? "" : loaded.error().message);
    weights = *loaded;
  }
  ParameterSet set;
  std::shared_ptr<const model::Weights> weights;
};

TEST(Export, Float32IsTheMastersToTheBit) {
  TempDir dir;
  const Exported e(ExportFormat::kFloat32, dir);
  const model::LayerWeights& layer = e.weights->layers[1];
  EXPECT_EQ(Widened(e.weights->embed), Values(e.set, "embed.weight"));
  EXPECT_EQ(Widened(layer.attn.wq_b), Values(e.set, "layers.1.attn.wq_b.weight"));
  EXPECT_EQ(Widened(layer.ffn.experts[3].w2), Values(e.set, "layers.1.ffn.experts.3.w2.weight"));
  EXPECT_EQ(layer.attn_norm, Values(e.set, "layers.1.attn_norm.weight"));
  EXPECT_EQ(layer.attn.compressor->ape, Values(e.set, "layers.1.attn.compressor.ape"));
  EXPECT_EQ(Widened(e.weights->mtp->e_proj), Values(e.set, "mtp.0.e_proj.weight"));
  EXPECT_EQ(e.weights->layers[0].ffn.tid2eid, e.set.FindTable("layers.0.ffn.gate.tid2eid")->ids);
}

TEST(Export, BFloat16RoundsMatricesAndNorms) {
  TempDir dir;
  const Exported e(ExportFormat::kBFloat16, dir);
  std::vector<float> want = Values(e.set, "layers.1.attn.wq_b.weight");
  for (float& v : want) v = RoundToBF16(v);
  EXPECT_EQ(Widened(e.weights->layers[1].attn.wq_b), want);
  EXPECT_EQ(Widened(e.weights->layers[1].hc_attn.fn), Values(e.set, "layers.1.hc_attn_fn"));
}

// What training with quantized weights computes on is what a loader reads.
TEST(Export, ReleasedFormatIsTheRoundTripToTheBit) {
  TempDir dir;
  const Exported e(ExportFormat::kReleased, dir);
  EXPECT_TRUE(e.weights->config.quantized);
  ThreadPool pool(2);
  const auto round_trip = [&](std::string_view name, auto function) {
    const Parameter* p = e.set.Find(name);
    std::vector<float> out(p->size());
    function(MatView<const float>(p->value.data(), p->rows, p->cols),
             MatView<float>(out.data(), p->rows, p->cols), Ctx(pool));
    return out;
  };
  const model::LayerWeights& layer = e.weights->layers[1];
  EXPECT_EQ(layer.attn.wq_b.kind, WeightKind::kFP8);
  EXPECT_EQ(Widened(layer.attn.wq_b), round_trip("layers.1.attn.wq_b.weight", RoundTripFp8Weights));
  EXPECT_EQ(Widened(layer.ffn.shared.w1),
            round_trip("layers.1.ffn.shared_experts.w1.weight", RoundTripFp8Weights));
  EXPECT_EQ(layer.ffn.experts[2].w1.kind, WeightKind::kFP4);
  EXPECT_EQ(Widened(layer.ffn.experts[2].w1),
            round_trip("layers.1.ffn.experts.2.w1.weight", RoundTripFp4Weights));
  EXPECT_EQ(Widened(layer.attn.compressor->wkv),
            round_trip("layers.1.attn.compressor.wkv.weight", RoundTripBf16Weights));
}

// Half a step of the format: FP8 has 3 mantissa bits, so 2^-4 of a value, or half its smallest step
// 2^-9 times the scale; the scale is at most twice the largest magnitude / 448.
TEST(WeightFormat, Fp8ErrorIsHalfAStep) {
  ThreadPool pool(1);
  constexpr size_t kRows = 130, kCols = 200;  // blocks cut at both edges
  std::vector<float> w(kRows * kCols), out(w.size());
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] = static_cast<float>(UniformOpen(CounterRandom(1, i, 0)) - 0.5);
  }
  RoundTripFp8Weights({w.data(), kRows, kCols}, {out.data(), kRows, kCols}, Ctx(pool));
  for (size_t i = 0; i < w.size(); ++i) {
    const float scale = 2 * 0.5f / 448;
    EXPECT_LE(std::fabs(out[i] - w[i]), std::max(std::fabs(w[i]) * 0x1p-4f, scale * 0x1p-10f)) << i;
  }
  // Twice is once.
  std::vector<float> again(w.size());
  RoundTripFp8Weights({out.data(), kRows, kCols}, {again.data(), kRows, kCols}, Ctx(pool));
  EXPECT_EQ(again, out);
}

TEST(Export, CopiesTheTokenizerAndMarksChatModels) {
  TempDir dir;
  std::filesystem::create_directories(dir / "tok");
  std::ofstream(dir / "tok/tokenizer.json") << tokenizer::V4TokenizerJson({});
  std::ofstream(dir / "tok/tokenizer_config.json") << "{\"add_bos_token\": false}";
  ThreadPool pool(1);
  const ParameterSet set = RandomSet(SmallConfig(), 3);
  ASSERT_TRUE(ExportCheckpoint(SmallConfig(), set,
                               {.out = dir / "out", .tokenizer = dir / "tok", .chat = true},
                               Ctx(pool))
                  .ok());
  EXPECT_TRUE(tokenizer::Tokenizer::Load(dir / "out").ok());
  EXPECT_TRUE(std::filesystem::exists(dir / "out/generation_config.json"));
}

TEST(Export, RefusesWhatALoaderWouldAndLeavesNothing) {
  TempDir dir;
  ThreadPool pool(1);
  ParameterSet set = RandomSet(SmallConfig(), 3);
  const std::string lost = set.parameters.back().name;
  set.parameters.pop_back();
  const Status missing = ExportCheckpoint(SmallConfig(), set, {.out = dir / "out"}, Ctx(pool));
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.find(lost), std::string::npos);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  std::filesystem::create_directories(dir / "out");
  EXPECT_FALSE(
      ExportCheckpoint(SmallConfig(), RandomSet(SmallConfig(), 3), {.out = dir / "out"}, Ctx(pool))
          .ok());
}

}  // namespace
}  // namespace cachalot::train
