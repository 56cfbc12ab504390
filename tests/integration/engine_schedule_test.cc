// SPDX-License-Identifier: Apache-2.0
// The engine under random schedules: whatever arrives when, is cancelled or remembered, every
// request gets the tokens it gets alone, and its events tell a consistent story.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>

#include "cachalot/base/rng.h"
#include "cachalot/engine/engine.h"
#include "tests/integration/model_harness.h"

namespace cachalot::testing {
namespace {

using engine::Engine;
using engine::EngineOptions;
using engine::Event;
using engine::FinishReason;
using engine::Request;
using engine::RequestId;

constexpr uint32_t kNumRequests = 6;
constexpr uint32_t kAnswer = 12;

// Six fixed requests of different lengths and ways to sample; two share a long beginning.
Request MakeRequest(uint32_t i, uint32_t vocab) {
  Request request{.max_new_tokens = kAnswer};
  const uint32_t text = i == 5 ? 4 : i;
  const uint32_t length = 3 + 23 * text + (i == 5 ? 9 : 0);
  for (uint32_t p = 0; p < length; ++p) {
    request.prompt.push_back(static_cast<uint32_t>(CounterRandom(text, 1, p) % vocab));
  }
  request.sampling.seed = i;
  request.sampling.temperature = i == 1 ? 0.0f : 1.0f;
  request.sampling.top_p = i == 2 ? 0.9f : 1.0f;
  request.sampling.repetition_penalty = i == 3 ? 1.2f : 1.0f;
  return request;
}

// What one request's events said.
struct Story {
  uint32_t which = 0;
  Ids tokens;
  uint32_t prompt_done = 0;
  std::optional<FinishReason> finish;
  bool cancelled = false;
};

class EngineSchedule : public ::testing::Test {
 protected:
  void SetUp() override {
    weights_ = LoadOrFail(std::string(CACHALOT_SOURCE_DIR) + "/models/mini");
    ASSERT_NE(weights_, nullptr);
    const auto engine = MakeEngine({.num_threads = 1, .max_context = 256});
    for (uint32_t i = 0; i < kNumRequests; ++i) {
      const auto id = engine->Submit(MakeRequest(i, vocab()));
      ASSERT_TRUE(id.ok());
      std::map<RequestId, Story> stories;
      while (engine->HasWork()) Step(*engine, stories);
      alone_.push_back(stories[*id].tokens);
      ASSERT_EQ(alone_.back().size(), kAnswer);
    }
  }

  uint32_t vocab() const { return weights_->config.vocab_size; }
  uint64_t TightMemory() const {
    const auto spec = weights_->config.kv_spec(KvFormat::kNative, false);
    return 3 * spec.block_bytes() + 3 * spec.state_bytes();
  }

  std::unique_ptr<Engine> MakeEngine(const EngineOptions& options) {
    auto engine = Engine::Create(weights_, options);
    EXPECT_TRUE(engine.ok()) << engine.error().message;
    return std::move(engine).value();
  }

  static void Step(Engine& engine, std::map<RequestId, Story>& stories) {
    const auto events = engine.Step();
    RC_ASSERT(events.ok());
    for (const Event& event : *events) {
      Story& story = stories[event.request];
      RC_ASSERT(!story.finish.has_value());
      RC_ASSERT(event.finish == FinishReason::kCancelled || event.prompt_done >= story.prompt_done);
      story.prompt_done = event.prompt_done;
      if (event.token) story.tokens.push_back(*event.token);
      story.finish = event.finish;
    }
  }

  void Check(const Story& story) {
    RC_ASSERT(story.finish.has_value());
    const Ids& want = alone_[story.which];
    if (*story.finish == FinishReason::kCancelled) {
      RC_ASSERT(story.cancelled);
      RC_ASSERT(story.tokens.size() <= want.size());
      RC_ASSERT(std::equal(story.tokens.begin(), story.tokens.end(), want.begin()));
    } else {
      RC_ASSERT(*story.finish == FinishReason::kLength);
      RC_ASSERT(story.tokens == want);
    }
  }

  void RunSchedule() {
    const auto threads = *rc::gen::element(1u, 2u, 3u);
    const auto sequences = *rc::gen::element(1u, 2u, 4u);
    const auto chunk = *rc::gen::element(1u, 7u, 16u, 64u);
    // Room for one full context and little beside it, or for all that comes.
    const auto memory = *rc::gen::element(uint64_t{0}, TightMemory());
    const auto engine = MakeEngine({.num_threads = threads,
                                    .max_context = 256,
                                    .max_sequences = sequences,
                                    .prefill_chunk = chunk,
                                    .kv_memory_bytes = memory,
                                    .checkpoint_interval = 128});
    std::map<RequestId, Story> stories;
    std::vector<RequestId> ids;
    const int num_actions = *rc::gen::inRange(1, 12);
    for (int a = 0; a < num_actions; ++a) {
      const auto action = *rc::gen::inRange(0, 10);
      if (action < 5) {
        const auto which = *rc::gen::inRange(0u, kNumRequests);
        Request request = MakeRequest(which, vocab());
        const auto scope = *rc::gen::inRange<uint64_t>(0, 3);
        if (scope > 0) request.cache = kvcache::CacheScope{scope};
        request.priority = *rc::gen::inRange(-1, 2);
        const auto id = engine->Submit(std::move(request));
        RC_ASSERT(id.ok());
        ids.push_back(*id);
        stories[*id].which = which;
      } else if (action == 5 && !ids.empty()) {
        const RequestId id = *rc::gen::elementOf(ids);
        engine->Cancel(id);
        stories[id].cancelled = true;
      } else if (action == 6 && !ids.empty()) {
        engine->PurgeCache(kvcache::CacheScope{1});
      } else {
        const int steps = *rc::gen::inRange(1, 20);
        for (int s = 0; s < steps; ++s) Step(*engine, stories);
      }
    }
    while (engine->HasWork()) Step(*engine, stories);
    for (const auto& [id, story] : stories) Check(story);
    RC_ASSERT(engine->stats().kv_reserved_bytes == 0);
    RC_ASSERT(engine->stats().cache.bytes <= engine->stats().kv_memory_bytes);
  }

  std::shared_ptr<const model::Weights> weights_;
  std::vector<Ids> alone_;
};

TEST_F(EngineSchedule, AnyScheduleGivesTheTokensOfEachRequestAlone) {
  // A fixed seed: a failure here is the same failure everywhere.
  const rc::detail::TestMetadata metadata{.id = "engine", .description = "any schedule"};
  rc::detail::TestParams params;
  params.seed = 20261124;
  params.maxSuccess = 12;
  params.disableShrinking = true;  // a run takes too long to be repeated hundreds of times
  const auto result = rc::detail::checkTestable([this] { RunSchedule(); }, metadata, params);
  EXPECT_TRUE(result.is<rc::detail::SuccessResult>()) << rc::toString(result);
}

// A queued request is not held up by the ones before it when it is cancelled.
TEST_F(EngineSchedule, CancellingAQueuedRequestEndsItInTheNextStep) {
  // One token a step, so that the events can be counted.
  const auto engine = MakeEngine(
      {.max_context = 256, .max_sequences = 1, .speculation = engine::Speculation::kOff});
  const auto first = engine->Submit(MakeRequest(3, vocab()));
  const auto second = engine->Submit(MakeRequest(2, vocab()));
  ASSERT_TRUE(engine->Step().ok());
  engine->Cancel(*second);
  const auto events = engine->Step();
  ASSERT_TRUE(events.ok());
  ASSERT_EQ(events->size(), 2u);
  EXPECT_EQ(events->front().request, *second);
  EXPECT_EQ(events->front().finish, FinishReason::kCancelled);
  EXPECT_EQ(events->back().request, *first);
  EXPECT_TRUE(events->back().token.has_value());
}

// A request that would never fit is refused at once, with the figures.
TEST_F(EngineSchedule, WhatNeedsMoreThanTheKvMemoryIsRefused) {
  const auto spec = weights_->config.kv_spec(KvFormat::kNative, weights_->mtp.has_value());
  const auto engine = MakeEngine(
      {.max_context = 1024, .kv_memory_bytes = 2 * spec.block_bytes() + spec.state_bytes()});
  Request request = MakeRequest(1, vocab());
  request.max_new_tokens = 200;
  EXPECT_TRUE(engine->Submit(request).ok());
  request.max_new_tokens = 300;
  const auto refused = engine->Submit(request);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(refused.error().message.find("--kv-memory"), std::string::npos);
}

TEST(EngineGolden, ExactGreedyEqualsGoldenForAnyChunkAndThreads) {
  const std::string dir = std::string(CACHALOT_SOURCE_DIR) + "/tests/golden/tiny-flash";
  const auto expected = TensorFile::Open(dir + "/expected.safetensors");
  const auto weights = LoadOrFail(dir);
  for (const auto& [threads, chunk] : {std::pair{1u, 7u}, {2u, 1u}, {3u, 64u}, {2u, 512u}}) {
    auto engine = Engine::Create(weights, {.numerics = model::Numerics::kExact,
                                           .num_threads = threads,
                                           .max_context = 256,
                                           .prefill_chunk = chunk});
    ASSERT_TRUE(engine.ok()) << engine.error().message;
    Request request{.prompt = expected.ReadIds("greedy.prompt"), .max_new_tokens = 16};
    request.sampling.temperature = 0.0f;
    const auto id = (*engine)->Submit(request);
    Ids tokens;
    while ((*engine)->HasWork()) {
      const auto events = (*engine)->Step();
      ASSERT_TRUE(events.ok()) << events.error().message;
      for (const Event& event : *events) {
        if (event.token) tokens.push_back(*event.token);
      }
    }
    EXPECT_EQ(tokens, expected.ReadIds("greedy.exact.tokens")) << threads << ", " << chunk;
  }
}

}  // namespace
}  // namespace cachalot::testing
