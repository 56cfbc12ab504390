// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/recipe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "cachalot/base/strings.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/model/inventory.h"
#include "cachalot/train/export.h"
#include "cachalot/train/memory_plan.h"

namespace cachalot::train {
namespace {

std::string RecipePath(std::string_view name) {
  return StrCat(CACHALOT_SOURCE_DIR, "/recipes/", name, ".toml");
}

std::string NanoText() {
  auto text = io::ReadFile(RecipePath("nano"), 1 << 20);
  EXPECT_TRUE(text.ok());
  return *text;
}

// nano with one piece of text replaced; the message it is refused with.
std::string Refusal(std::string_view from, std::string_view to) {
  std::string text = NanoText();
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
  const auto recipe = ParseRecipe(text, "x.toml");
  EXPECT_FALSE(recipe.ok()) << to;
  return recipe.ok() ? "" : recipe.error().message;
}

size_t LineOf(std::string_view piece) {
  const std::string text = NanoText();
  return 1 + static_cast<size_t>(std::count(
                 text.begin(), text.begin() + static_cast<long>(text.find(piece)), '\n'));
}

TEST(Recipe, PresetsLoad) {
  for (const char* name : {"nano", "mini", "mini-recall", "small", "bench-train", "compare"}) {
    const auto recipe = LoadRecipe(RecipePath(name));
    ASSERT_TRUE(recipe.ok()) << recipe.error().message;
    EXPECT_EQ(recipe->name, name);
    EXPECT_FALSE(recipe->model.quantized);
    EXPECT_TRUE(CheckExport(recipe->model, ExportFormat::kReleased).ok()) << name;
  }
}

TEST(Recipe, BenchTrainIsTheGoldenStep) {
  const auto recipe = LoadRecipe(RecipePath("bench-train"));
  ASSERT_TRUE(recipe.ok());
  // golden/train/README.md: 10.5 million parameters, 8 sequences of 512.
  EXPECT_NEAR(static_cast<double>(model::ComputeTotals(recipe->model).parameters_with_draft),
              10.5e6, 0.05e6);
  EXPECT_EQ(BatchSequences(recipe->schedule, 0), 8u);
  EXPECT_EQ(StageAt(recipe->schedule, 0).sequence_length, 512u);
  EXPECT_EQ(MtpWeight(recipe->schedule, 0), 0.3);
  EXPECT_TRUE(recipe->optimizer.muon);
}

TEST(Recipe, MiniKeepsTheBoundsOfTheRepositoryModel) {
  const auto recipe = LoadRecipe(RecipePath("mini"));
  ASSERT_TRUE(recipe.ok());
  EXPECT_LE(model::ComputeTotals(recipe->model).activated, 4'000'000u);
  EXPECT_LE(TokensBefore(recipe->schedule, recipe->schedule.steps), 60'000'000u);
}

TEST(Recipe, UnknownKeysAreRefusedByNameAndLine) {
  EXPECT_EQ(
      Refusal("warmup_steps = 40", "warmup = 40"),
      StrCat("x.toml:", LineOf("warmup_steps"),
             ": unknown key 'warmup' in [schedule]; known are batch_ramp_steps, batch_tokens, "
             "decay_mtp_weight, decay_steps, final_learning_rate, indexer_learning_rate, "
             "learning_rate, micro_batch_tokens, mtp_weight, stage, start_batch_tokens, "
             "steps, warmup_steps"));
  EXPECT_NE(Refusal("index_topk", "index_top_k = 3\nindex_topk").find("unknown key 'index_top_k'"),
            std::string::npos);
  EXPECT_NE(Refusal("[evaluation]", "[eval]\n[evaluation]").find("unknown key 'eval'"),
            std::string::npos);
  EXPECT_NE(Refusal("attention = \"dense\"", "mode = \"dense\"").find("[[schedule.stage]]"),
            std::string::npos);
}

TEST(Recipe, RecomputeNamesTensors) {
  EXPECT_FALSE(LoadRecipe(RecipePath("nano"))->memory.recompute.contains(Recomputable::kStreams));
  const auto recipe = ParseRecipe(
      StrCat(NanoText(), "\n[memory]\nrecompute = [\"streams\", \"expert_gate_up\"]\n"), "x.toml");
  ASSERT_TRUE(recipe.ok()) << recipe.error().message;
  for (size_t i = 0; i < RecomputableNames().size(); ++i) {
    const std::string_view name = RecomputableNames()[i];
    EXPECT_EQ(recipe->memory.recompute.contains(static_cast<Recomputable>(i)),
              name == "streams" || name == "expert_gate_up")
        << name;
  }
  const std::string message =
      Refusal("[evaluation]", "[memory]\nrecompute = [\"mixed\", \"stream\"]\n[evaluation]");
  EXPECT_TRUE(message.starts_with(
      StrCat("x.toml:", LineOf("[evaluation]") + 1,
             ": [memory].recompute is \"stream\", expected a list of names among \"streams\", ")))
      << message;
  EXPECT_NE(message.find("\"expert_gate_up\""), std::string::npos) << message;
  EXPECT_NE(Refusal("[evaluation]", "[memory]\nrecompute = \"streams\"\n[evaluation]")
                .find("expected a list of names"),
            std::string::npos);
}

TEST(Recipe, OnlyAsciiReachesTheParser) {
  const auto recipe = ParseRecipe("name = \"x\"\n\u3001\n", "x.toml");
  ASSERT_FALSE(recipe.ok());
  EXPECT_TRUE(recipe.error().message.starts_with("x.toml:2: a recipe is plain ASCII"))
      << recipe.error().message;
}

TEST(Recipe, BadValuesNameFoundAndExpected) {
  EXPECT_EQ(Refusal("warmup_steps = 40", "warmup_steps = -1"),
            StrCat("x.toml:", LineOf("warmup_steps"),
                   ": [schedule].warmup_steps is -1, expected a whole number from 0 to 600"));
  EXPECT_NE(Refusal("2e-2", "\"fast\"").find("learning_rate is \"fast\", expected a number"),
            std::string::npos);
  EXPECT_NE(Refusal("2e-2", "nan").find("learning_rate"), std::string::npos);
  EXPECT_NE(Refusal("\"dense\"", "\"Dense\"").find("expected one of \"dense\", "),
            std::string::npos);
  EXPECT_NE(Refusal("from_step = 420", "from_step = 400").find("expected more than 400"),
            std::string::npos);
  EXPECT_NE(Refusal("hidden_size = 128\n", "").find("[model] needs hidden_size"),
            std::string::npos);
  EXPECT_NE(Refusal("hidden_size = 128", "hidden_size = 1.5").find("hidden_size is 1.5"),
            std::string::npos);
  EXPECT_NE(Refusal("o_groups = 2", "o_groups = 3").find("expected a divisor"), std::string::npos);
  EXPECT_NE(Refusal("steps = 600", "steps = ").find("x.toml:"), std::string::npos);
  EXPECT_NE(Refusal("[evaluation]", "[residual]\nmap = \"hc\"\n[evaluation]")
                .find("expected one of \"mhc\", \"unconstrained\", \"plain\""),
            std::string::npos);
  EXPECT_NE(Refusal("[evaluation]", "[residual]\nmap = \"plain\"\n[evaluation]")
                .find("qat must be false"),
            std::string::npos);
  EXPECT_FALSE(LoadRecipe("/nonexistent.toml").ok());
}

Schedule TestSchedule() {
  return {.steps = 100,
          .warmup_steps = 10,
          .decay_steps = 20,
          .learning_rate = 1.0,
          .final_learning_rate = 0.1,
          .indexer_learning_rate = 0.5,
          .batch_tokens = 4000,
          .start_batch_tokens = 1000,
          .batch_ramp_steps = 30,
          .micro_batch_tokens = 1200,
          .stages = {{0, 100, AttentionMode::kDense},
                     {50, 400, AttentionMode::kIndexerWarmup},
                     {60, 400, AttentionMode::kSparse}}};
}

TEST(Schedule, StagesGoOnWithTheDataOfTheOneBefore) {
  Recipe recipe;
  recipe.data.train = "first";
  recipe.schedule = TestSchedule();
  recipe.schedule.stages[1].train = "second";
  EXPECT_EQ(TrainDataAt(recipe, 0), "first");
  EXPECT_EQ(TrainDataAt(recipe, 49), "first");
  EXPECT_EQ(TrainDataAt(recipe, 50), "second");
  EXPECT_EQ(TrainDataAt(recipe, 99), "second");
}

TEST(Schedule, LearningRate) {
  const Schedule s = TestSchedule();
  EXPECT_DOUBLE_EQ(LearningRate(s, 0), 0.1);
  EXPECT_DOUBLE_EQ(LearningRate(s, 9), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(s, 49), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(s, 55), 0.5);
  EXPECT_DOUBLE_EQ(LearningRate(s, 79), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(s, 89), 0.55);  // half way down the cosine
  EXPECT_DOUBLE_EQ(LearningRate(s, 99), 0.1);
  EXPECT_DOUBLE_EQ(LearningRate(s, 1000), 0.1);
  for (uint64_t step = 80; step < 99; ++step) {
    EXPECT_GT(LearningRate(s, step), LearningRate(s, step + 1));
  }
}

TEST(Schedule, BatchAndLength) {
  const Schedule s = TestSchedule();
  EXPECT_EQ(BatchSequences(s, 0), 10u);
  EXPECT_EQ(BatchSequences(s, 15), 25u);
  EXPECT_EQ(BatchSequences(s, 30), 40u);
  EXPECT_EQ(StageAt(s, 49).sequence_length, 100u);
  EXPECT_EQ(StageAt(s, 50).sequence_length, 400u);
  EXPECT_EQ(BatchSequences(s, 50), 10u);
  EXPECT_EQ(BatchTokens(s, 50), 4000u);
  EXPECT_EQ(MicroBatchSequences(s, 0), 10u);
  EXPECT_EQ(MicroBatchSequences(s, 30), 12u);
  EXPECT_EQ(MicroBatchSequences(s, 60), 3u);
  uint64_t tokens = 0;
  for (uint64_t step = 0; step <= 120; ++step) {
    EXPECT_EQ(TokensBefore(s, step), tokens) << step;
    tokens += BatchTokens(s, step);
  }
}

TEST(Schedule, AStageMayHaveABatchOfItsOwn) {
  Schedule s = TestSchedule();
  s.stages[0].batch_tokens = 500;  // no ramp
  s.stages[2].batch_tokens = 800;
  EXPECT_EQ(BatchSequences(s, 0), 5u);
  EXPECT_EQ(BatchSequences(s, 49), 5u);
  EXPECT_EQ(BatchSequences(s, 50), 10u);
  EXPECT_EQ(BatchSequences(s, 60), 2u);
  EXPECT_EQ(MicroBatchSequences(s, 60), 2u);
  EXPECT_EQ(TokensBefore(s, 61), 50u * 500 + 10u * 4000 + 800);
}

TEST(Schedule, SequencesLongerThanTheBatchCountAsOne) {
  Schedule s = TestSchedule();
  s.stages = {{0, 8192, AttentionMode::kDense}};
  EXPECT_EQ(BatchSequences(s, 40), 1u);
  EXPECT_EQ(MicroBatchSequences(s, 40), 1u);
}

TEST(Schedule, MtpWeightFallsWithTheLearningRate) {
  const Schedule s = TestSchedule();
  EXPECT_EQ(MtpWeight(s, 79), 0.3);
  EXPECT_EQ(MtpWeight(s, 80), 0.1);
}

TEST(MemoryPlan, CountsParametersByOptimizer) {
  auto recipe = LoadRecipe(RecipePath("bench-train"));
  ASSERT_TRUE(recipe.ok());
  const MemoryPlan plan = PlanMemory(*recipe, 2);
  EXPECT_EQ(plan.parameters, model::ComputeTotals(recipe->model).parameters_with_draft);
  EXPECT_EQ(plan.items[0].bytes, 4 * plan.parameters);
  // AdamW: embedding and head, 2 x 2048 x 256, two position biases of HCA, 128 x 128 each, vectors.
  EXPECT_NEAR(static_cast<double>(plan.parameters - plan.muon_parameters),
              2.0 * (2048 * 256 + 128 * 128), 2e4);
  recipe->optimizer.muon = false;
  EXPECT_EQ(PlanMemory(*recipe, 2).muon_parameters, 0u);
  EXPECT_GT(PlanMemory(*recipe, 2).total_bytes(), plan.total_bytes() - (64u << 20));
}

TEST(MemoryPlan, EachChoiceOfRecomputationNeedsLess) {
  auto recipe = LoadRecipe(RecipePath("mini"));
  ASSERT_TRUE(recipe.ok());
  const uint64_t before = PlanMemory(*recipe, 2).total_bytes();
  RecomputeSet all;
  for (size_t i = 0; i < RecomputableNames().size(); ++i) {
    const auto tensor = static_cast<Recomputable>(i);
    recipe->memory.recompute = {};
    recipe->memory.recompute.Add(tensor);
    all.Add(tensor);
    EXPECT_LT(PlanMemory(*recipe, 2).total_bytes(), before) << RecomputableNames()[i];
  }
  recipe->memory.recompute = all;
  EXPECT_LT(PlanMemory(*recipe, 2).total_bytes(), before * 2 / 3);
}

TEST(MemoryPlan, RanksShareMastersAndMoments) {
  auto recipe = LoadRecipe(RecipePath("small"));
  ASSERT_TRUE(recipe.ok());
  const auto item = [](const MemoryPlan& plan, std::string_view what) {
    for (const PlannedMemory& i : plan.items) {
      if (i.what == what) return i.bytes;
    }
    return uint64_t{0};
  };
  const MemoryPlan one = PlanMemory(*recipe, 1);
  const MemoryPlan four = PlanMemory(*recipe, 1, 4);
  EXPECT_EQ(one.parameters, four.parameters);
  EXPECT_EQ(one.sent_bytes, 0u);
  EXPECT_EQ(item(one, "gradients, float32"), item(four, "gradients, float32"));
  const auto owned = [&](const MemoryPlan& plan) {
    return item(plan, "parameters, float32") + item(plan, "Muon momentum") +
           item(plan, "AdamW moments");
  };
  EXPECT_GE(owned(four), owned(one) / 4);
  EXPECT_LT(owned(four), owned(one) / 2);
  // Two levels of the tree are between the ranks.
  EXPECT_LT(item(four, "gradients of subtrees of micro-batches"),
            item(one, "gradients of subtrees of micro-batches"));
  // Gradients out and values back: 2 P (R - 1) / R floats if all owned the same.
  EXPECT_GE(four.sent_bytes, 4 * four.parameters * 2 * 3 / 4);
}

TEST(MemoryPlan, SmallerMicroBatchesNeedLess) {
  auto recipe = LoadRecipe(RecipePath("mini"));
  ASSERT_TRUE(recipe.ok());
  recipe->schedule.batch_tokens = 8192;
  recipe->schedule.micro_batch_tokens = 8192;
  const uint64_t before = PlanMemory(*recipe, 2).total_bytes();
  recipe->schedule.micro_batch_tokens = 4096;
  EXPECT_LT(PlanMemory(*recipe, 2).total_bytes(), before * 2 / 3);
}

}  // namespace
}  // namespace cachalot::train
