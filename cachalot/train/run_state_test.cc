// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/run_state.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "cachalot/io/mapped_file.h"
#include "cachalot/train/test_support.h"

namespace cachalot::train {
namespace {

struct Trainee {
  explicit Trainee(uint64_t seed, const OptimizerOptions& options = {})
      : config(SmallConfig()), set(RandomSet(config, seed)), optimizer(config, set, options) {}

  // Gradients are a function of the step, as data would make them.
  void Step(uint64_t step) {
    for (size_t i = 0; i < set.parameters.size(); ++i) {
      Parameter& p = set.parameters[i];
      for (size_t k = 0; k < p.size(); ++k) {
        p.grad[k] = static_cast<float>(UniformOpen(CounterRandom(step, i, k)) - 0.5) + p.value[k];
      }
    }
    optimizer.Step(set, 0.01f, {}, {&pool, kernels::Path::kSimd, kernels::SupportedTargets()[0]});
  }

  ThreadPool pool{2};
  model::Config config;
  ParameterSet set;
  Optimizer optimizer;
};

bool SameBits(const AlignedBuffer<float>& a, const AlignedBuffer<float>& b) {
  return a.size() == b.size() &&
         (a.size() == 0 || std::memcmp(a.data(), b.data(), 4 * a.size()) == 0);
}

void ExpectSame(const Trainee& a, const Trainee& b) {
  for (size_t i = 0; i < a.set.parameters.size(); ++i) {
    const std::string& name = a.set.parameters[i].name;
    EXPECT_TRUE(SameBits(a.set.parameters[i].value, b.set.parameters[i].value)) << name;
    EXPECT_TRUE(SameBits(a.optimizer.state()[i].first, b.optimizer.state()[i].first)) << name;
    EXPECT_TRUE(SameBits(a.optimizer.state()[i].second, b.optimizer.state()[i].second)) << name;
    EXPECT_EQ(a.optimizer.state()[i].steps, b.optimizer.state()[i].steps) << name;
  }
}

RunState State() {
  return {.recipe = "name = \"x\"\n",
          .step = 3,
          .tokens = 12345,
          .data = {2, 17, 512},
          .numbers = {{"best_loss", 0x3ff0000000000001ull}, {"rollbacks", 1}}};
}

// As Masters::Save of a single rank.
Status SaveRun(const std::string& path, const RunState& state, const ParameterSet& set,
               const Optimizer& optimizer) {
  CACHALOT_TRY(RunWriter writer, RunWriter::Create(path, state, set, optimizer));
  for (size_t i = 0; i < set.parameters.size(); ++i) {
    CACHALOT_RETURN_IF_ERROR(writer.Append(set.parameters[i].value.span()));
    CACHALOT_RETURN_IF_ERROR(writer.Append(optimizer.state()[i].first.span()));
    CACHALOT_RETURN_IF_ERROR(writer.Append(optimizer.state()[i].second.span()));
  }
  return writer.Finish(set);
}

TEST(RunState, ResumesBitForBit) {
  TempDir dir;
  Trainee straight(1);
  for (uint64_t step = 0; step < 3; ++step) straight.Step(step);
  ASSERT_TRUE(SaveRun(dir / "a.run", State(), straight.set, straight.optimizer).ok());
  for (uint64_t step = 3; step < 6; ++step) straight.Step(step);

  Trainee resumed(2);  // another start, all of which must be overwritten
  resumed.set.tables[0].ids[0] ^= 1u;
  const auto state = LoadRun(dir / "a.run", resumed.set, resumed.optimizer);
  ASSERT_TRUE(state.ok()) << state.error().message;
  EXPECT_EQ(state->recipe, State().recipe);
  EXPECT_EQ(state->step, 3u);
  EXPECT_EQ(state->tokens, 12345u);
  EXPECT_EQ(state->data, State().data);
  EXPECT_EQ(state->numbers, State().numbers);
  EXPECT_EQ(resumed.set.tables[0].ids, straight.set.tables[0].ids);
  for (uint64_t step = state->step; step < 6; ++step) resumed.Step(step);
  ExpectSame(straight, resumed);
}

TEST(RunState, CutsAndFlippedBitsAreRefusedAndChangeNothing) {
  TempDir dir;
  Trainee run(1);
  ASSERT_TRUE(SaveRun(dir / "a.run", State(), run.set, run.optimizer).ok());
  auto bytes = io::ReadFile(dir / "a.run", uint64_t{1} << 30);
  ASSERT_TRUE(bytes.ok());
  Trainee other(2), untouched(2);
  const auto parse = [&](const std::string& b) {
    return ParseRun("a.run", reinterpret_cast<const uint8_t*>(b.data()), b.size(), other.set,
                    other.optimizer);
  };
  // All of the header, and places spread over the rest.
  for (size_t at = 0; at < bytes->size(); at += at < 64 ? 1 : 1 + bytes->size() / 50) {
    EXPECT_FALSE(parse(bytes->substr(0, at)).ok()) << at;
    std::string bad = *bytes;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    EXPECT_FALSE(parse(bad).ok()) << at;
  }
  EXPECT_FALSE(parse(*bytes + "x").ok());
  ExpectSame(other, untouched);
  EXPECT_TRUE(parse(*bytes).ok());
}

TEST(RunState, AnotherModelOrOptimizerIsRefusedByTensor) {
  TempDir dir;
  Trainee run(1);
  ASSERT_TRUE(SaveRun(dir / "a.run", State(), run.set, run.optimizer).ok());
  Trainee adamw(1, {.muon = false});
  const auto other = LoadRun(dir / "a.run", adamw.set, adamw.optimizer);
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(other.error().message.find("hc_head_fn"), std::string::npos) << other.error().message;
}

TEST(RunState, KeepsTheLastAndClearsWhatKilledProcessesLeft) {
  TempDir dir;
  Trainee run(1);
  EXPECT_EQ(LatestRun(dir.path()).error().code, ErrorCode::kNotFound);
  for (const uint64_t step : {5u, 10u, 100u, 20u}) {
    ASSERT_TRUE(SaveRun(RunPath(dir.path(), step), State(), run.set, run.optimizer).ok());
  }
  std::ofstream(dir / "step-000000000007.run.tmp.123") << "half";
  std::ofstream(dir / "notes.txt") << "mine";
  EXPECT_EQ(*LatestRun(dir.path()), RunPath(dir.path(), 100));
  ASSERT_TRUE(PruneRuns(dir.path(), 2).ok());
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
    (void)entry;
    ++files;
  }
  EXPECT_EQ(files, 3u);  // steps 100 and 20, and the notes
  EXPECT_TRUE(std::filesystem::exists(RunPath(dir.path(), 20)));
}

TEST(RunState, UnwritableFoldersAreAnError) {
  Trainee run(1);
  const Status status = SaveRun("/nonexistent/a.run", State(), run.set, run.optimizer);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("/nonexistent/a.run"), std::string::npos);
}

}  // namespace
}  // namespace cachalot::train
