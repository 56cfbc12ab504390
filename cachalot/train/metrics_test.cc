// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "cachalot/io/mapped_file.h"
#include "cachalot/train/svg_plot.h"
#include "cachalot/train/test_support.h"

namespace cachalot::train {
namespace {

StepMetrics Metrics(uint64_t step) {
  return {.step = step,
          .tokens = 4096 * (step + 1),
          .loss = 5.0 / 3.0 + 1.0 / static_cast<double>(step + 1),
          .mtp_loss = 2.0,
          .learning_rate = 2.7e-4,
          .gradient_norm = 0.1,
          .mhc_gain = 1.25,
          .residual_gains = {1.0, 1.25},
          .expert_load = {1.0, 1.7},
          .validation_loss = step % 2 == 0 ? std::optional<double>(1.5) : std::nullopt};
}

std::string Text(const std::string& path) {
  auto text = io::ReadFile(path, 1 << 20);
  EXPECT_TRUE(text.ok());
  return *text;
}

TEST(Metrics, JsonRoundTripsExactly) {
  const StepMetrics m = Metrics(6);
  const auto back = StepFromJson(StepToJson(m), "x");
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->loss, m.loss);
  EXPECT_EQ(back->tokens, m.tokens);
  EXPECT_EQ(back->expert_load, m.expert_load);
  EXPECT_EQ(back->residual_gains, m.residual_gains);
  EXPECT_EQ(back->validation_loss, m.validation_loss);
  StepMetrics broken = m;
  broken.loss = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(std::isnan(StepFromJson(StepToJson(broken), "x")->loss));
}

TEST(Metrics, ResumedRunsContinueTheFiles) {
  TempDir dir;
  {
    auto writer = MetricsWriter::Open(dir.path(), 0);
    ASSERT_TRUE(writer.ok()) << writer.error().message;
    for (uint64_t step = 0; step < 10; ++step) ASSERT_TRUE(writer->Append(Metrics(step)).ok());
  }
  std::ofstream(dir / "metrics.jsonl", std::ios::app) << "{\"step\": 10, \"tok";  // killed here
  {
    auto writer = MetricsWriter::Open(dir.path(), 6);
    ASSERT_TRUE(writer.ok());
    for (uint64_t step = 6; step < 12; ++step) ASSERT_TRUE(writer->Append(Metrics(step)).ok());
  }
  const auto all = ReadMetrics(dir.path());
  ASSERT_TRUE(all.ok());
  ASSERT_EQ(all->size(), 12u);
  for (uint64_t step = 0; step < 12; ++step) {
    EXPECT_EQ(StepToJson((*all)[step]), StepToJson(Metrics(step)));
  }
  const std::string csv = Text(dir / "metrics.csv");
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 13);
  EXPECT_TRUE(csv.starts_with("step,tokens,loss,mtp_loss,"));
}

TEST(Metrics, BadLinesAreNamed) {
  TempDir dir;
  EXPECT_EQ(ReadMetrics(dir.path()).error().code, ErrorCode::kNotFound);
  std::ofstream(dir / "metrics.jsonl") << StepToJson(Metrics(0)) << "\n{\"loss\": 1}\n";
  const auto read = ReadMetrics(dir.path());
  ASSERT_FALSE(read.ok());
  EXPECT_NE(read.error().message.find("metrics.jsonl:2"), std::string::npos);
}

TEST(SvgPlot, DrawsPanelsAndEscapesTexts) {
  Series loss{.name = "a<b"};
  for (int i = 0; i < 5000; ++i) loss.points.emplace_back(i, i == 2500 ? 50.0 : 1.0 / (i + 1));
  const std::string svg = PlotSvg("run & more", {{"loss", "step", {loss, {"empty", {}}}},
                                                 {"one", "step", {{"p", {{3.0, 7.0}}}}},
                                                 {"none", "step", {}}});
  EXPECT_TRUE(svg.starts_with("<svg"));
  EXPECT_NE(svg.find("run &amp; more"), std::string::npos);
  EXPECT_NE(svg.find("a&lt;b"), std::string::npos);
  EXPECT_NE(svg.find("no values"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  EXPECT_LT(svg.size(), 40000u);  // 5,000 points on 710 columns
  // The spike of one step touches the top of its panel: y = title + top margin.
  EXPECT_NE(svg.find(" 64.0L"), std::string::npos);
}

TEST(SvgPlot, SurvivesAnyNumbers) {
  const double inf = std::numeric_limits<double>::infinity();
  Series s{.name = "x", .points = {{0, inf}, {1, std::nan("")}, {2, 1e300}, {3, -1e300}, {inf, 1}}};
  const std::string svg = PlotSvg("t", {{"p", "x", {s}}});
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
}

}  // namespace
}  // namespace cachalot::train
