// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <thread>

#include "cachalot/io/mapped_file.h"
#include "cachalot/train/dataset.h"
#include "cachalot/train/export.h"
#include "cachalot/train/memory_plan.h"
#include "cachalot/train/run_state.h"
#include "cachalot/train/test_support.h"

namespace cachalot::train {
namespace {

// Counting modulo 20 from a random start: quickly learned.
void WriteCounting(const std::string& dir, uint64_t seed, uint64_t samples) {
  auto writer = DatasetWriter::Create(dir, 288, 7);
  ASSERT_TRUE(writer.ok());
  for (uint64_t s = 0; s < samples; ++s) {
    Sample sample;
    const size_t length = 10 + CounterRandom(seed, s, 0) % 60;
    for (size_t i = 0; i < length; ++i) {
      sample.ids.push_back(static_cast<uint32_t>((CounterRandom(seed, s, 1) + i) % 20));
      sample.is_target.push_back(i > 0 ? 1 : 0);
    }
    ASSERT_TRUE(writer->Add(sample).ok());
  }
  ASSERT_TRUE(writer->Finish().ok());
}

struct Counting {
  Counting() {
    WriteCounting(dir / "train", 1, 60);
    WriteCounting(dir / "later", 3, 60);
    WriteCounting(dir / "valid", 2, 6);
    recipe.name = "counting";
    recipe.model = SmallConfig();
    recipe.data.train = dir / "train";
    recipe.data.validation = dir / "valid";
    recipe.schedule = {.steps = 14,
                       .warmup_steps = 2,
                       .decay_steps = 4,
                       .learning_rate = 0.05,
                       .final_learning_rate = 0.005,
                       .batch_tokens = 192,
                       .start_batch_tokens = 96,
                       .batch_ramp_steps = 4,
                       .micro_batch_tokens = 96,
                       .stages = {{0, 48, AttentionMode::kDense},
                                  {9, 96, AttentionMode::kIndexerWarmup, dir / "later"},
                                  {10, 96, AttentionMode::kSparse}}};
    recipe.precision.qat = true;
    recipe.precision.qat_from_step = 11;
    recipe.checkpoint = {.every_steps = 5, .keep_last = 2};
    recipe.evaluation = {.every_steps = 5, .tokens = 100};
  }

  std::unique_ptr<Trainer> Open(std::string_view run, ThreadPool& pool,
                                comm::Communicator* comm = nullptr,
                                ExpertPlacement experts = ExpertPlacement::kReplicated) {
    const TrainerOptions options{
        .run_dir = dir / run, .recipe_text = "x", .comm = comm, .experts = experts};
    auto trainer = Trainer::Create(
        recipe, options, {&pool, kernels::Path::kSimd, kernels::SupportedTargets().front()});
    EXPECT_TRUE(trainer.ok()) << (trainer.ok() ? "" : trainer.error().message);
    return std::move(trainer).value();
  }

  TempDir dir;
  Recipe recipe;
};

// Steps until `end`; losses go to `losses`.
void Take(Trainer& trainer, uint64_t end, std::vector<double>* losses = nullptr) {
  while (trainer.step() < end) {
    const auto m = trainer.Step();
    ASSERT_TRUE(m.ok()) << m.error().message;
    if (losses != nullptr) losses->push_back(m->loss);
  }
}

// The same on ranks, each a thread.
void TakeOnRanks(Counting& setup, std::string_view run, uint32_t num_ranks, ExpertPlacement experts,
                 uint64_t end) {
  auto ranks = comm::ThreadRanks(num_ranks);
  std::vector<std::jthread> threads;
  for (auto& rank : ranks) {
    threads.emplace_back([&, &comm = *rank] {
      ThreadPool pool(1);
      auto trainer = setup.Open(run, pool, &comm, experts);
      while (trainer->step() < end || !trainer->can_save()) {
        const auto m = trainer->Step();
        CACHALOT_CHECK(m.ok());  // the others would wait
      }
      EXPECT_TRUE(trainer->Save().ok());
    });
  }
}

std::string Checkpoint(const Counting& setup, std::string_view run, uint64_t step) {
  const auto bytes = io::ReadFile(RunPath(setup.dir / StrCat(run, "/checkpoints"), step), 1 << 30);
  EXPECT_TRUE(bytes.ok()) << bytes.error().message;
  return bytes.ok() ? *bytes : std::string();
}

void ExpectSameBits(const ParameterSet& a, const ParameterSet& b) {
  for (size_t i = 0; i < a.parameters.size(); ++i) {
    const Parameter& p = a.parameters[i];
    EXPECT_EQ(
        std::memcmp(p.value.data(), b.parameters[i].value.data(), p.value.span().size_bytes()), 0)
        << p.name;
  }
}

TEST(Trainer, LossFallsAndStoppedRunsEndInTheSameBits) {
  Counting setup;
  ThreadPool two(2), three(3);
  auto straight = setup.Open("straight", two);
  std::vector<double> losses;
  Take(*straight, 14, &losses);
  EXPECT_TRUE(straight->done());
  EXPECT_LT(losses.back(), 0.8 * losses.front());

  // Stopped in every stage: after a save, and killed five steps after one. Other threads as well.
  { Take(*setup.Open("stopped", two), 7); }
  {
    auto trainer = setup.Open("stopped", three);
    EXPECT_EQ(trainer->step(), 5u);  // the last checkpoint
    Take(*trainer, 9);
    ASSERT_TRUE(trainer->Save().ok());
  }
  {
    auto trainer = setup.Open("stopped", two);
    EXPECT_EQ(trainer->step(), 9u);
    Take(*trainer, 12);
    ASSERT_TRUE(trainer->Save().ok());
  }
  auto last = setup.Open("stopped", three);
  EXPECT_EQ(last->step(), 12u);
  Take(*last, 14);
  ExpectSameBits(straight->parameters(), last->parameters());

  const auto a = ReadMetrics(setup.dir / "straight");
  const auto b = ReadMetrics(setup.dir / "stopped");
  ASSERT_TRUE(a.ok() && b.ok());
  ASSERT_EQ(a->size(), 14u);
  ASSERT_EQ(b->size(), 14u);
  for (size_t i = 0; i < 14; ++i) {
    EXPECT_EQ((*a)[i].loss, (*b)[i].loss) << i;
    EXPECT_EQ((*a)[i].validation_loss, (*b)[i].validation_loss) << i;
    EXPECT_EQ((*a)[i].validation_loss.has_value(), i == 4 || i == 9 || i == 13) << i;
  }
}

// As an export does while the run goes on.
TEST(Trainer, OpeningARunLeavesItsMetrics) {
  Counting setup;
  ThreadPool pool(2);
  auto running = setup.Open("run", pool);
  Take(*running, 7);
  EXPECT_EQ(setup.Open("run", pool)->step(), 5u);
  Take(*running, 8);
  const auto metrics = ReadMetrics(setup.dir / "run");
  ASSERT_TRUE(metrics.ok());
  EXPECT_EQ(metrics->size(), 8u);
}

TEST(Trainer, DistributedExpertsCannotMakeGateAndUpAgain) {
  Counting setup;
  setup.recipe.memory.recompute.Add(Recomputable::kExpertGateUp);
  auto ranks = comm::ThreadRanks(2);
  ThreadPool pool(1);
  const auto trainer =
      Trainer::Create(setup.recipe,
                      {.run_dir = setup.dir / "run",
                       .recipe_text = "x",
                       .comm = ranks[0].get(),
                       .experts = ExpertPlacement::kDistributed},
                      {&pool, kernels::Path::kSimd, kernels::SupportedTargets().front()});
  ASSERT_FALSE(trainer.ok());
  EXPECT_NE(trainer.error().message.find("expert_gate_up"), std::string::npos);
}

// The first step of the largest batch: values to all, gradients to their owners.
TEST(Trainer, RanksSendWhatIsPlanned) {
  Counting setup;
  setup.recipe.schedule.batch_ramp_steps = 0;
  for (const uint32_t num_ranks : {2u, 4u}) {
    auto ranks = comm::ThreadRanks(num_ranks);
    std::vector<uint64_t> sent(num_ranks);
    {
      std::vector<std::jthread> threads;
      for (auto& rank : ranks) {
        threads.emplace_back([&, &comm = *rank] {
          ThreadPool pool(1);
          auto trainer = setup.Open(StrCat(num_ranks, "ranks"), pool, &comm);
          CACHALOT_CHECK(trainer->Step().ok());
          sent[comm.rank()] = comm.bytes_sent();
        });
      }
    }
    EXPECT_EQ(*std::ranges::max_element(sent), PlanMemory(setup.recipe, 1, num_ranks).sent_bytes);
  }
}

TEST(Trainer, ARunBeginsWhereAnotherEnded) {
  Counting setup;
  ThreadPool two(2);
  auto first = setup.Open("first", two);
  Take(*first, 14);
  ASSERT_TRUE(first->Save().ok());

  setup.recipe.start_from = setup.dir / "first";
  auto second = setup.Open("second", two);
  EXPECT_EQ(second->step(), 0u);
  ExpectSameBits(second->parameters(), first->parameters());
  // Stopped and resumed it is a run like any other: what it started from is not read again.
  Take(*second, 7);
  std::filesystem::remove_all(setup.dir / "first");
  auto resumed = setup.Open("second", two);
  EXPECT_EQ(resumed->step(), 5u);
  Take(*resumed, 7);
  ExpectSameBits(resumed->parameters(), second->parameters());

  setup.recipe.start_from = setup.dir / "none";
  const auto none =
      Trainer::Create(setup.recipe, {.run_dir = setup.dir / "third", .recipe_text = "x"},
                      {&two, kernels::Path::kSimd, kernels::SupportedTargets().front()});
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.error().message.find("train that run first"), std::string::npos)
      << none.error().message;
}

TEST(Trainer, OnlyTheIndexerLearnsInItsWarmup) {
  Counting setup;
  setup.recipe.schedule.stages = {{0, 96, AttentionMode::kIndexerWarmup}};
  ThreadPool pool(2);
  auto trainer = setup.Open("run", pool);
  const ParameterSet before = [&] {
    auto set = MakeParameters(setup.recipe.model);
    InitializeParameters(setup.recipe.model, setup.recipe.seed, *set);
    return std::move(*set);
  }();
  Take(*trainer, 2);
  for (size_t i = 0; i < before.parameters.size(); ++i) {
    const Parameter& p = before.parameters[i];
    const bool same = std::memcmp(p.value.data(), trainer->parameters().parameters[i].value.data(),
                                  p.value.span().size_bytes()) == 0;
    EXPECT_EQ(same, p.name.find(".indexer.") == std::string::npos) << p.name;
  }
}

// What it counts is that of the matrices that move: the same in every dense step, the indexer's in
// its warm-up.
TEST(Trainer, FlopOfNewtonSchulzAreCountedBesideTheNetworks) {
  Counting setup;
  setup.recipe.schedule.stages = {{0, 48, AttentionMode::kDense},
                                  {2, 96, AttentionMode::kIndexerWarmup},
                                  {3, 96, AttentionMode::kSparse}};
  setup.recipe.precision.qat = false;
  ThreadPool pool(2);
  const auto trainer = Trainer::Create(
      setup.recipe, {.run_dir = setup.dir / "run", .recipe_text = "x", .peak_flop_per_s = 1e9},
      {&pool, kernels::Path::kSimd, kernels::SupportedTargets().front()});
  ASSERT_TRUE(trainer.ok());
  std::vector<double> flop;  // of a step, in those of the network for one token
  for (uint64_t before = 0; flop.size() < 4;) {
    const auto m = (*trainer)->Step();
    ASSERT_TRUE(m.ok());
    flop.push_back((m->mfu_with_newton_schulz / m->mfu - 1) *
                   static_cast<double>(m->tokens - before));
    before = m->tokens;
  }
  EXPECT_GT(flop[0], 1);
  EXPECT_NEAR(flop[1], flop[0], 1e-9 * flop[0]);
  EXPECT_GT(flop[2], 0);
  EXPECT_NEAR(flop[0] + flop[2], flop[3], 1e-9 * flop[3]);
}

// Two layers and an MTP block that learn under each residual map. Doubly stochastic maps keep the
// gain at 1, and so does the identity; a linear map starts there and leaves.
TEST(Trainer, ResidualMapsLearnAndTheirGainIsKnown) {
  for (const ResidualMap map :
       {ResidualMap::kSinkhorn, ResidualMap::kUnconstrained, ResidualMap::kIdentity}) {
    Counting setup;
    setup.recipe.residual = map;
    setup.recipe.precision.qat = false;
    ThreadPool pool(2);
    auto trainer = setup.Open("run", pool);
    std::vector<double> losses;
    Take(*trainer, 6, &losses);
    EXPECT_LT(losses.back(), losses.front());
    const auto metrics = ReadMetrics(setup.dir / "run");
    ASSERT_TRUE(metrics.ok());
    const StepMetrics& last = metrics->back();
    EXPECT_EQ(last.residual_gains.size(), 2 * setup.recipe.model.num_hidden_layers);
    if (map == ResidualMap::kUnconstrained) {
      EXPECT_GT(last.mhc_gain, 1.001);
    } else {
      EXPECT_NEAR(last.mhc_gain, 1.0, map == ResidualMap::kIdentity ? 0.0 : 1e-3);
    }
  }
}

// The loss that the quantization-aware phase reports is that of the bytes it would write, whoever
// computes it.
TEST(Trainer, ExportedLossIsTheQuantizedLossToTheBit) {
  Counting setup;
  ThreadPool two(2), three(3);
  auto trainer = setup.Open("run", two);
  Take(*trainer, 14);
  const kernels::Context ctx{&three, kernels::Path::kSimd, kernels::SupportedTargets().front()};
  const auto valid = Dataset::Open(setup.dir / "valid");
  ASSERT_TRUE(valid.ok());
  const EvaluationSet set = EvaluationSetOf(setup.recipe, *valid, 13);
  const auto loss_of = [&](const char* name, ExportFormat format) {
    const ExportOptions options{.out = setup.dir / name, .format = format};
    EXPECT_TRUE(ExportCheckpoint(setup.recipe.model, trainer->parameters(), options, ctx).ok());
    const auto loss = EvaluateCheckpoint(options.out, set, ctx);
    EXPECT_TRUE(loss.ok()) << (loss.ok() ? "" : loss.error().message);
    return loss.ok() ? loss->mean() : 0.0;
  };
  const auto evaluated = trainer->Evaluate();
  ASSERT_TRUE(evaluated.ok() && evaluated->has_value());
  EXPECT_EQ(**evaluated, loss_of("released", ExportFormat::kReleased));
  EXPECT_NE(**evaluated, loss_of("masters", ExportFormat::kFloat32));
  const auto metrics = ReadMetrics(setup.dir / "run");
  ASSERT_TRUE(metrics.ok());
  EXPECT_EQ(metrics->back().validation_loss, **evaluated);
}

TEST(SpikeDetector, JumpsOnceItKnowsTheLoss) {
  SpikeDetector detector;
  EXPECT_FALSE(detector.Take(4, 5));
  for (int i = 0; i < 200; ++i) EXPECT_FALSE(detector.Take(3 + 0.1 * (i % 2), 5)) << i;
  EXPECT_FALSE(detector.Take(3.2, 5));
  std::map<std::string, uint64_t> numbers;
  detector.Save(numbers);
  SpikeDetector restored;
  restored.Load(numbers);
  EXPECT_TRUE(restored.Take(3.5, 5));
  EXPECT_TRUE(restored.Take(3.5, 5));  // it did not enter the mean
  EXPECT_FALSE(restored.Take(3.5, 0));
  restored.Reset();
  EXPECT_FALSE(restored.Take(30, 5));
}

// At a rate so high that nothing is learned the loss is noise, and with so low a threshold that is
// a spike: the run goes back, anticipates its routing, and is stopped in the middle of it.
TEST(Trainer, SpikesRollBackAndStoppedRunsEndInTheSameBits) {
  Counting setup;
  setup.recipe.precision.qat = false;
  setup.recipe.evaluation.every_steps = 1000;
  setup.recipe.schedule.steps = 56;
  setup.recipe.schedule.batch_tokens = 96;
  setup.recipe.schedule.batch_ramp_steps = 0;
  setup.recipe.schedule.learning_rate = 0.1;
  setup.recipe.schedule.final_learning_rate = 0.1;
  setup.recipe.schedule.stages = {{0, 48, AttentionMode::kDense}};
  setup.recipe.stability = {.spike_deviations = 0.01, .anticipate_steps = 11, .anticipate_lag = 4};
  ThreadPool pool(2);
  auto straight = setup.Open("straight", pool);
  std::vector<uint64_t> returns;
  while (!straight->done()) {
    const uint64_t at = straight->step();
    const auto m = straight->Step();
    ASSERT_TRUE(m.ok()) << m.error().message;
    if (straight->step() <= at) returns.push_back(straight->step());
  }
  ASSERT_FALSE(returns.empty());
  const auto metrics = ReadMetrics(setup.dir / "straight");
  ASSERT_TRUE(metrics.ok());
  EXPECT_EQ(metrics->size(), 56u);
  EXPECT_TRUE((*metrics)[returns.back()].rolled_back_from.has_value());

  auto stopped = setup.Open("stopped", pool);
  while (!stopped->done() && stopped->can_save()) ASSERT_TRUE(stopped->Step().ok());
  EXPECT_FALSE(stopped->done());
  stopped = setup.Open("stopped", pool);  // killed while it anticipates
  while (!stopped->done()) ASSERT_TRUE(stopped->Step().ok());
  ExpectSameBits(straight->parameters(), stopped->parameters());

  // Ranks roll back and anticipate together.
  TakeOnRanks(setup, "ranks", 4, ExpertPlacement::kDistributed, 56);
  ASSERT_TRUE(straight->Save().ok());
  EXPECT_EQ(Checkpoint(setup, "straight", 56), Checkpoint(setup, "ranks", 56));
}

// Masters, moments and losses; resumed by another number of ranks each time, with experts
// elsewhere.
TEST(Trainer, AnyNumberOfRanksEndsInTheSameBits) {
  constexpr auto kReplicated = ExpertPlacement::kReplicated;
  constexpr auto kDistributed = ExpertPlacement::kDistributed;
  Counting setup;
  setup.recipe.schedule.batch_tokens = 96 * 5;  // of four ranks one has none
  ThreadPool pool(2);
  Take(*setup.Open("one", pool), 14);
  TakeOnRanks(setup, "ranks", 2, kDistributed, 5);
  TakeOnRanks(setup, "ranks", 4, kReplicated, 8);
  TakeOnRanks(setup, "ranks", 4, kDistributed, 12);
  TakeOnRanks(setup, "ranks", 2, kReplicated, 14);
  EXPECT_EQ(Checkpoint(setup, "one", 14), Checkpoint(setup, "ranks", 14));
  const auto a = ReadMetrics(setup.dir / "one");
  const auto b = ReadMetrics(setup.dir / "ranks");
  ASSERT_TRUE(a.ok() && b.ok());
  ASSERT_EQ(a->size(), b->size());
  for (size_t i = 0; i < a->size(); ++i) {
    EXPECT_EQ((*a)[i].loss, (*b)[i].loss) << i;
    EXPECT_EQ((*a)[i].gradient_norm, (*b)[i].gradient_norm) << i;
    EXPECT_EQ((*a)[i].validation_loss, (*b)[i].validation_loss) << i;
    EXPECT_EQ((*a)[i].expert_load, (*b)[i].expert_load) << i;
  }
}

TEST(Trainer, RefusesOtherRecipesAndVocabularies) {
  Counting setup;
  ThreadPool pool(1);
  Take(*setup.Open("run", pool), 5);
  const kernels::Context ctx{&pool, kernels::Path::kSimd, kernels::SupportedTargets().front()};
  const auto other =
      Trainer::Create(setup.recipe, {.run_dir = setup.dir / "run", .recipe_text = "y"}, ctx);
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.error().message.find("another recipe"), std::string::npos);
  setup.recipe.model.vocab_size = 100;
  const auto small =
      Trainer::Create(setup.recipe, {.run_dir = setup.dir / "new", .recipe_text = "x"}, ctx);
  ASSERT_FALSE(small.ok());
  EXPECT_NE(small.error().message.find("vocabulary of 288"), std::string::npos);
}

TEST(Trainer, NonFiniteValuesStopTheRunByName) {
  Counting setup;
  setup.recipe.schedule.learning_rate = 1e38;
  setup.recipe.schedule.warmup_steps = 0;
  ThreadPool pool(1);
  auto trainer = setup.Open("run", pool);
  Result<StepMetrics> m = trainer->Step();
  for (int i = 0; i < 3 && m.ok(); ++i) m = trainer->Step();
  ASSERT_FALSE(m.ok());
  EXPECT_EQ(m.error().code, ErrorCode::kDataCorruption);
  EXPECT_NE(m.error().message.find("first in "), std::string::npos) << m.error().message;
}

}  // namespace
}  // namespace cachalot::train
