// SPDX-License-Identifier: Apache-2.0
// The engine over streamed experts: the same tokens as over resident ones, faults that end requests
// and not the engine, and experience that is kept.
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <map>

#include "cachalot/base/temp_dir.h"
#include "cachalot/engine/engine.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/stream/faulty_queue.h"
#include "cachalot/stream/load.h"
#include "cachalot/stream/profile.h"
#include "tests/integration/model_harness.h"

namespace cachalot::testing {
namespace {

using stream::ReadFate;

class StreamingEngine : public ::testing::Test {
 protected:
  void SetUp() override {
    mapped_ = LoadOrFail(std::string(CACHALOT_SOURCE_DIR) + "/models/mini");
    ASSERT_NE(mapped_, nullptr);
    slots_ = stream::MeasureStream(*mapped_).num_experts / 4;
  }

  std::shared_ptr<const model::Weights> Streamed() {
    stream::StreamOptions options;
    options.cache.num_slots = slots_;
    const std::shared_ptr<bool> broken = broken_;
    options.cache.reader.new_queue = [broken](uint32_t depth) {
      return std::make_unique<stream::FaultyQueue>(
          depth, [broken](uint64_t, uint64_t) { return ReadFate{.error = *broken ? EIO : 0}; }, 1);
    };
    auto weights = stream::StreamWeights(*mapped_, options);
    EXPECT_TRUE(weights.ok()) << weights.error().message;
    return *weights;
  }
  static std::unique_ptr<engine::Engine> NewEngine(std::shared_ptr<const model::Weights> weights,
                                                   uint32_t share_reads = 0) {
    auto engine = engine::Engine::Create(std::move(weights), {.num_threads = 2,
                                                              .max_context = 256,
                                                              .max_sequences = 3,
                                                              .prefill_chunk = 16,
                                                              .prefill_slack = 1.01,
                                                              .share_reads = share_reads});
    EXPECT_TRUE(engine.ok());
    return std::move(engine).value();
  }
  engine::Request NewRequest(uint32_t seed) const {
    engine::Request request;
    request.prompt = MakeIds(30, mapped_->config.vocab_size, seed);
    request.max_new_tokens = 12;
    request.sampling.seed = seed;
    request.cache = kvcache::CacheScope{};
    return request;
  }
  struct Answers {
    std::map<engine::RequestId, Ids> tokens;
    std::map<engine::RequestId, Error> errors;
  };
  static Answers RunAll(engine::Engine& engine) {
    Answers answers;
    while (engine.HasWork()) {
      const auto events = engine.Step();
      EXPECT_TRUE(events.ok()) << events.error().message;
      if (!events.ok()) break;
      for (const engine::Event& event : *events) {
        if (event.token) answers.tokens[event.request].push_back(*event.token);
        if (event.error) answers.errors.emplace(event.request, *event.error);
      }
    }
    return answers;
  }

  std::shared_ptr<const model::Weights> mapped_;
  uint64_t slots_ = 0;
  std::shared_ptr<bool> broken_ = std::make_shared<bool>(false);
};

TEST_F(StreamingEngine, AnswersAreThoseOfResidentWeights) {
  const auto resident = NewEngine(mapped_);
  const auto streamed = NewEngine(Streamed());
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    ASSERT_TRUE(resident->Submit(NewRequest(seed)).ok());
    ASSERT_TRUE(streamed->Submit(NewRequest(seed)).ok());
  }
  EXPECT_EQ(RunAll(*resident).tokens, RunAll(*streamed).tokens);
  const engine::EngineStats stats = streamed->stats();
  ASSERT_TRUE(stats.experts.has_value());
  EXPECT_GT(stats.experts->Total().wanted, stats.experts->Total().hits);
  EXPECT_GT(stats.experts->read_bytes, 0u);
  EXPECT_FALSE(resident->stats().experts.has_value());
}

// A stream runs, then two prompts come.
TEST_F(StreamingEngine, PromptsThatShareReadsWaitNoLongerThanTheyMay) {
  constexpr uint32_t kShare = 3;
  std::vector<std::map<engine::RequestId, Ids>> answers;
  for (const uint32_t share : {0u, kShare}) {
    const auto engine = NewEngine(Streamed(), share);
    engine::Request stream = NewRequest(1);
    stream.max_new_tokens = 60;
    ASSERT_TRUE(engine->Submit(stream).ok());
    while (engine->stats().generated_tokens == 0) ASSERT_TRUE(engine->Step().ok());
    ASSERT_TRUE(engine->Submit(NewRequest(2)).ok());
    ASSERT_TRUE(engine->Submit(NewRequest(3)).ok());
    std::map<engine::RequestId, Ids> tokens;
    uint32_t waited = 0, longest = 0;
    while (engine->HasWork()) {
      const engine::EngineStats before = engine->stats();
      const auto events = engine->Step();
      ASSERT_TRUE(events.ok());
      const engine::EngineStats after = engine->stats();
      waited = after.held_steps > before.held_steps ? waited + 1 : 0;
      longest = std::max(longest, waited);
      // The stream is never the one that waits.
      EXPECT_TRUE(waited == 0 || after.generated_tokens > before.generated_tokens);
      for (const engine::Event& event : *events) {
        if (event.token) tokens[event.request].push_back(*event.token);
      }
    }
    EXPECT_EQ(longest, share);  // the prompts are longer than what a step has room for
    answers.push_back(std::move(tokens));
  }
  EXPECT_EQ(answers[0], answers[1]);
}

// What a cancelled prompt waited for is nobody else's: the next one waits from the beginning.
TEST_F(StreamingEngine, StepsThatACancelledPromptLetPassAreForgotten) {
  const auto engine = NewEngine(Streamed(), /*share_reads=*/3);
  engine::Request stream = NewRequest(1);
  stream.max_new_tokens = 60;
  ASSERT_TRUE(engine->Submit(stream).ok());
  while (engine->stats().generated_tokens == 0) ASSERT_TRUE(engine->Step().ok());
  const auto cancelled = engine->Submit(NewRequest(2));
  ASSERT_TRUE(cancelled.ok());
  while (engine->stats().held_steps < 2) ASSERT_TRUE(engine->Step().ok());
  engine->Cancel(*cancelled);
  ASSERT_TRUE(engine->Step().ok());
  ASSERT_TRUE(engine->Submit(NewRequest(3)).ok());
  for (uint64_t held = 3; held <= 5; ++held) {
    ASSERT_TRUE(engine->Step().ok());
    EXPECT_EQ(engine->stats().held_steps, held);
  }
  ASSERT_TRUE(engine->Step().ok());
  EXPECT_EQ(engine->stats().held_steps, 5u);
}

TEST_F(StreamingEngine, AFaultEndsRequestsAndNotTheEngine) {
  const auto engine = NewEngine(Streamed());
  ASSERT_TRUE(engine->Submit(NewRequest(1)).ok());
  ASSERT_TRUE(engine->Submit(NewRequest(2)).ok());
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(engine->Step().ok());
  *broken_ = true;
  const Answers broken = RunAll(*engine);
  ASSERT_FALSE(broken.errors.empty());
  for (const auto& [id, error] : broken.errors) {
    EXPECT_EQ(error.code, ErrorCode::kIo);
    EXPECT_NE(error.message.find(".safetensors"), std::string::npos) << error.message;
  }
  *broken_ = false;
  // The same prompts: nothing wrong may have been remembered of the broken ones.
  const auto resident = NewEngine(mapped_);
  std::vector<Ids> want, got;
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    ASSERT_TRUE(resident->Submit(NewRequest(seed)).ok());
    ASSERT_TRUE(engine->Submit(NewRequest(seed)).ok());
  }
  for (auto& [id, tokens] : RunAll(*resident).tokens) want.push_back(tokens);
  const Answers well = RunAll(*engine);
  EXPECT_TRUE(well.errors.empty());
  for (auto& [id, tokens] : well.tokens) got.push_back(tokens);
  EXPECT_EQ(want, got);
}

TEST_F(StreamingEngine, AMirrorMustHoldTheSameFiles) {
  namespace fs = std::filesystem;
  const TempDir dir;
  const std::string source = std::string(CACHALOT_SOURCE_DIR) + "/models/mini";
  for (const char* name : {"a", "b"}) fs::copy(source, dir / name, fs::copy_options::recursive);
  const auto mapped = LoadOrFail(dir / "a");
  stream::StreamOptions options{.mirror_dir = dir / "b"};
  options.cache.num_slots = slots_;
  {
    const auto mirrored = stream::StreamWeights(*mapped, options);
    ASSERT_TRUE(mirrored.ok()) << mirrored.error().message;
    // The first copy loses its end: everything comes from the second.
    const fs::path shard = mapped->storage->shard_path(0);
    fs::resize_file(shard, fs::file_size(shard) / 2);
    const auto engine = NewEngine(*mirrored);
    const auto resident = NewEngine(mapped_);
    ASSERT_TRUE(engine->Submit(NewRequest(1)).ok());
    ASSERT_TRUE(resident->Submit(NewRequest(1)).ok());
    EXPECT_EQ(RunAll(*engine).tokens, RunAll(*resident).tokens);
    const model::ExpertStats stats = *engine->stats().experts;
    EXPECT_GT(stats.retries, 0u);
    ASSERT_EQ(stats.copy_bytes.size(), 2u);
    EXPECT_GT(stats.copy_bytes[1], stats.copy_bytes[0]);
  }
  const auto refused = stream::StreamWeights(*mapped, options);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.error().message.find("--weights-mirror"), std::string::npos);
}

TEST_F(StreamingEngine, ExperienceIsKept) {
  const TempDir dir;
  const std::string path = dir / "experts.json";
  const auto weights = Streamed();
  ASSERT_TRUE(stream::LoadProfile(path, *stream::CacheOf(*weights)).ok());  // none yet
  const auto engine = NewEngine(weights);
  ASSERT_TRUE(engine->Submit(NewRequest(1)).ok());
  const Answers first = RunAll(*engine);
  ASSERT_TRUE(stream::SaveProfile(path, *stream::CacheOf(*weights)).ok());

  const auto later = Streamed();
  ASSERT_TRUE(stream::LoadProfile(path, *stream::CacheOf(*later)).ok());
  // All slots are filled before anybody asks, and nothing in them is wrong.
  EXPECT_GE(later->expert_source->stats().reads, slots_);
  const auto second = NewEngine(later);
  ASSERT_TRUE(second->Submit(NewRequest(1)).ok());
  EXPECT_EQ(RunAll(*second).tokens.begin()->second, first.tokens.begin()->second);

  for (const char* bad :
       {"", "[]", "{\"format\": \"cachalot-expert-profile\", \"version\": 1}",
        "{\"format\": \"cachalot-expert-profile\", \"version\": 1, \"uses\": [[-1]]}"}) {
    ASSERT_TRUE(io::WriteFileAtomic(path, bad).ok());
    const Status status = stream::LoadProfile(path, *stream::CacheOf(*later));
    ASSERT_FALSE(status.ok()) << bad;
    EXPECT_NE(status.error().message.find(path), std::string::npos);
  }
}

}  // namespace
}  // namespace cachalot::testing
