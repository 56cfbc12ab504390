// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/bench_report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace cachalot::eval {
namespace {

Bench SomeBench() {
  Bench bench;
  bench.limits = {.read_bytes_per_s = 30e9, .f32_flop_per_s = 200e9, .bf16_flop_per_s = 400e9};
  bench.read_bytes_per_s_by_threads = {20e9, 30e9};
  PrefillFigures prefill{.context = 512, .tokens = 512, .run_s = {5.0, 6.0, 7.0}};
  prefill.cost = {.weight_bytes = 1'000'000'000, .flops = 1'800'000'000'000};
  PrefillFigures deep = prefill;
  deep.context = 1u << 20;
  DecodeFigures decode{.context = 512, .batch = 1, .step_s = {0.05, 0.05, 0.06}};
  decode.cost = {.weight_bytes = 1'200'000'000, .flops = 3'500'000'000};
  DecodeFigures batch = decode;
  batch.batch = 8;
  DecodeFigures far = decode;
  far.context = 1u << 20;
  far.filled = true;
  bench.prefill = {prefill, deep};
  bench.decode = {decode, far, batch};
  return bench;
}

TEST(BenchReport, SpeedsAndSharesFollowFromTheMedian) {
  const Bench bench = SomeBench();
  EXPECT_DOUBLE_EQ(bench.decode[0].tokens_per_s(), 20.0);
  EXPECT_DOUBLE_EQ(bench.decode[2].tokens_per_s(), 160.0);
  EXPECT_DOUBLE_EQ(bench.prefill[0].tokens_per_s(), 512 / 6.0);
  EXPECT_DOUBLE_EQ(OfLimit(bench.decode[0], bench), 0.8);    // 40 of 50 ms
  EXPECT_DOUBLE_EQ(OfLimit(bench.prefill[0], bench), 0.75);  // 4.5 of 6 s
  EXPECT_FALSE(bench.prefill[0].filled());
  EXPECT_TRUE(bench.prefill[1].filled());
}

TEST(BenchReport, JsonHasWhatCompareReads) {
  const Json json = BenchJson(SomeBench(), {}, {.commit = "abc", .model = "m"});
  EXPECT_EQ(json["format"], "cachalot-bench");
  EXPECT_EQ(json["commit"], "abc");
  EXPECT_EQ(json["decode"].size(), 3u);
  EXPECT_EQ(json["decode"][2]["batch"], 8);
  EXPECT_DOUBLE_EQ(json["decode"][0]["p50_s"].get<double>(), 0.05);
  EXPECT_DOUBLE_EQ(json["prefill"][0]["time_to_first_token_s"].get<double>(), 6.0);
  EXPECT_TRUE(json["machine"].contains("read_bytes_per_s"));
  EXPECT_TRUE(json["memory"].contains("private_bytes"));
  EXPECT_EQ(json["decode"][0]["profile"].size(), model::kNumStepOps);
  EXPECT_TRUE(json["speculation"].is_null());
}

TEST(BenchReport, ChartIsOneWellFormedSvg) {
  const std::string svg = BenchChart(SomeBench(), {.commit = "a<b>&c", .machine = {.cpu = "X"}});
  EXPECT_EQ(svg.find("<svg "), 0u);
  EXPECT_EQ(svg.rfind("</svg>\n"), svg.size() - 7);
  EXPECT_NE(svg.find("a&lt;b&gt;&amp;c"), std::string::npos);
  EXPECT_NE(svg.find(">512<"), std::string::npos);
  EXPECT_NE(svg.find(">1M<"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  EXPECT_EQ(std::ranges::count(svg, '<'), std::ranges::count(svg, '>'));
}

TEST(BenchReport, ChartOfOneContextOrNoneIsStillAFile) {
  Bench bench = SomeBench();
  bench.decode.resize(1);
  bench.prefill.clear();
  EXPECT_EQ(BenchChart(bench, {}).find("nan"), std::string::npos);
  bench.decode.clear();
  EXPECT_NE(BenchChart(bench, {}).find("</svg>"), std::string::npos);
}

}  // namespace
}  // namespace cachalot::eval
