// SPDX-License-Identifier: Apache-2.0
// The engine on the golden model and on models/mini: greedy text, batching, continuation, limits.
#include "cachalot/engine/engine.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/integration/model_harness.h"

namespace cachalot::testing {
namespace {

using engine::Engine;
using engine::EngineOptions;
using engine::Event;
using engine::FinishReason;
using engine::Request;
using engine::RequestId;

std::string Tiny() { return std::string(CACHALOT_SOURCE_DIR) + "/tests/golden/tiny-flash"; }
std::string Mini() { return std::string(CACHALOT_SOURCE_DIR) + "/models/mini"; }

std::unique_ptr<Engine> MakeEngine(const std::string& dir, const EngineOptions& options) {
  auto engine = Engine::Create(LoadOrFail(dir), options);
  EXPECT_TRUE(engine.ok()) << engine.error().message;
  return std::move(engine).value();
}

struct Answer {
  Ids tokens;
  std::optional<FinishReason> finish;
};

std::map<RequestId, Answer> RunAll(Engine& engine) {
  std::map<RequestId, Answer> answers;
  while (engine.HasWork()) {
    const auto events = engine.Step();
    EXPECT_TRUE(events.ok()) << events.error().message;
    if (!events.ok()) break;
    for (const Event& event : *events) {
      Answer& answer = answers[event.request];
      if (event.token) answer.tokens.push_back(*event.token);
      if (event.finish) answer.finish = event.finish;
    }
  }
  return answers;
}

Ids Complete(Engine& engine, Request request) {
  const auto id = engine.Submit(std::move(request));
  EXPECT_TRUE(id.ok()) << id.error().message;
  return RunAll(engine)[*id].tokens;
}

Request Greedy(Ids prompt, uint32_t count) {
  Request request{.prompt = std::move(prompt), .max_new_tokens = count};
  request.sampling.temperature = 0.0f;
  return request;
}

TEST(EngineTest, GreedyEqualsGolden) {
  const auto expected = TensorFile::Open(Tiny() + "/expected.safetensors");
  const auto engine = MakeEngine(Tiny(), {.numerics = model::Numerics::kReference});
  EXPECT_EQ(Complete(*engine, Greedy(expected.ReadIds("greedy.prompt"), 16)),
            expected.ReadIds("greedy.kv.tokens"));
}

// The same seeded requests alone and together, with different chunk sizes, give the same tokens.
TEST(EngineTest, AnswersDoNotDependOnNeighborsOrChunks) {
  std::vector<Request> requests;
  for (uint32_t i = 0; i < 5; ++i) {
    Request request{.prompt = Ids(3 + 29 * i, 17 + i), .max_new_tokens = 20};
    request.sampling.seed = 100 + i;
    request.sampling.top_p = i % 2 == 0 ? 1.0f : 0.9f;
    requests.push_back(request);
  }
  std::vector<Ids> alone;
  const auto single = MakeEngine(Mini(), {.num_threads = 1, .max_sequences = 1});
  for (const Request& request : requests) alone.push_back(Complete(*single, request));
  for (uint32_t chunk : {1u, 7u, 64u}) {
    const auto engine =
        MakeEngine(Mini(), {.num_threads = 2, .max_sequences = 3, .prefill_chunk = chunk});
    std::vector<RequestId> ids;
    for (const Request& request : requests) ids.push_back(*engine->Submit(request));
    auto answers = RunAll(*engine);
    for (size_t i = 0; i < ids.size(); ++i) {
      EXPECT_EQ(answers[ids[i]].tokens, alone[i]) << "request " << i << ", chunk " << chunk;
      EXPECT_EQ(answers[ids[i]].finish, FinishReason::kLength);
    }
  }
}

// A hit counts tokens whose forward did not run.
Answer CompleteCached(Engine& engine, Request request, uint32_t* reused) {
  request.cache = kvcache::CacheScope{1};
  const auto id = engine.Submit(request);
  EXPECT_TRUE(id.ok());
  const auto events = engine.Step();
  EXPECT_TRUE(events.ok());
  *reused = events->front().reused;
  Answer answer;
  if (events->front().token) answer.tokens.push_back(*events->front().token);
  const Answer rest = RunAll(engine)[*id];
  answer.tokens.insert(answer.tokens.end(), rest.tokens.begin(), rest.tokens.end());
  return answer;
}

TEST(EngineTest, GoingOnFromARememberedPrefixEqualsAFreshPrompt) {
  const auto engine = MakeEngine(Mini(), {});
  uint32_t reused = 0;
  const Request first = Greedy(Ids(150, 42), 10);
  const Ids answer = CompleteCached(*engine, first, &reused).tokens;
  EXPECT_EQ(reused, 0u);

  Ids longer = first.prompt;
  longer.insert(longer.end(), answer.begin(), answer.end());
  longer.insert(longer.end(), {7, 8, 9});
  const Ids continued = CompleteCached(*engine, Greedy(longer, 10), &reused).tokens;
  EXPECT_EQ(reused, 159u) << "all but the last sampled token, which was never fed";
  EXPECT_EQ(continued, Complete(*MakeEngine(Mini(), {}), Greedy(longer, 10)));

  // The same again: only the last token is fed.
  EXPECT_EQ(CompleteCached(*engine, Greedy(longer, 10), &reused).tokens, continued);
  EXPECT_EQ(reused, longer.size() - 1);

  // Edited a few tokens before the end of the first prompt: a short rewind.
  Ids edited = Ids(150, 42);
  edited.resize(145);
  edited.insert(edited.end(), {3, 4, 5});
  const Ids changed = CompleteCached(*engine, Greedy(edited, 5), &reused).tokens;
  EXPECT_EQ(reused, 145u);
  EXPECT_EQ(changed, Complete(*MakeEngine(Mini(), {}), Greedy(edited, 5)));

  // Another scope finds nothing.
  Request other = Greedy(longer, 10);
  other.cache = kvcache::CacheScope{2};
  ASSERT_TRUE(engine->Submit(other).ok());
  EXPECT_EQ(engine->Step()->front().reused, 0u);
}

TEST(EngineTest, ACancelledRequestIsRememberedBeforeOthersAreAdmitted) {
  // One token a step.
  const auto engine =
      MakeEngine(Mini(), {.max_sequences = 1, .speculation = engine::Speculation::kOff});
  Request request = Greedy(Ids(150, 42), 100);
  request.cache = kvcache::CacheScope{1};
  const RequestId id = *engine->Submit(request);
  Ids longer = request.prompt;
  for (int i = 0; i < 10; ++i) longer.push_back(*engine->Step()->front().token);
  engine->Cancel(id);
  request.prompt = longer;
  ASSERT_TRUE(engine->Submit(request).ok());
  const auto events = engine->Step();
  ASSERT_EQ(events->size(), 2u) << "its place is free at once";
  EXPECT_EQ((*events)[0].finish, FinishReason::kCancelled);
  EXPECT_EQ((*events)[1].reused, longer.size() - 1)
      << "all but the last sampled token, which was never fed";
}

TEST(EngineTest, LongPromptsAreRememberedOnTheWay) {
  const auto engine = MakeEngine(Mini(), {.max_context = 1024, .checkpoint_interval = 256});
  uint32_t reused = 0;
  CompleteCached(*engine, Greedy(Ids(700, 3), 1), &reused);
  Ids fork = Ids(700, 3);
  fork.resize(600);
  fork.push_back(1);
  const Ids answer = CompleteCached(*engine, Greedy(fork, 6), &reused).tokens;
  EXPECT_EQ(reused, 512u) << "the last checkpoint before the texts part";
  EXPECT_EQ(answer, Complete(*MakeEngine(Mini(), {}), Greedy(fork, 6)));
}

TEST(EngineTest, StopTokenEndsAndIsReported) {
  const auto engine = MakeEngine(Mini(), {});
  const Ids free_run = Complete(*engine, Greedy(Ids(20, 5), 8));
  Request request = Greedy(Ids(20, 5), 8);
  request.stop_tokens = {free_run[3]};
  const auto id = engine->Submit(request);
  const Answer answer = RunAll(*engine)[*id];
  EXPECT_EQ(answer.finish, FinishReason::kStop);
  EXPECT_EQ(answer.tokens.back(), free_run[3]);
  EXPECT_LE(answer.tokens.size(), 4u);
}

TEST(EngineTest, CancelEndsBeforeTheNextStep) {
  const auto engine = MakeEngine(Mini(), {});
  const auto id = engine->Submit(Greedy(Ids(20, 5), 1000));
  ASSERT_TRUE(engine->Step().ok());
  engine->Cancel(*id);
  const auto queued = engine->Submit(Greedy(Ids(20, 6), 1000));
  engine->Cancel(*queued);
  const auto answers = RunAll(*engine);
  EXPECT_EQ(answers.at(*id).finish, FinishReason::kCancelled);
  EXPECT_EQ(answers.at(*queued).finish, FinishReason::kCancelled);
  EXPECT_TRUE(answers.at(*queued).tokens.empty());
}

TEST(EngineTest, ConstraintDecidesWhatMayCome) {
  struct OnlyEven : engine::TokenConstraint {
    void ApplyMask(std::span<uint64_t> mask) override {
      for (uint64_t& word : mask) word &= 0x5555555555555555ull;
    }
    void Accept(uint32_t token) override { accepted.push_back(token); }
    Ids accepted;
  } only_even;
  const auto engine = MakeEngine(Mini(), {});
  Request request{.prompt = Ids(5, 3), .max_new_tokens = 30, .constraint = &only_even};
  const Ids tokens = Complete(*engine, request);
  EXPECT_EQ(tokens, only_even.accepted);
  for (uint32_t token : tokens) EXPECT_EQ(token % 2, 0u);
}

TEST(EngineTest, BadRequestsAreRefusedWithFigures) {
  const auto engine = MakeEngine(Mini(), {.max_context = 64});
  const auto message = [&](Request request) {
    const auto id = engine->Submit(std::move(request));
    return id.ok() ? std::string("accepted") : id.error().message;
  };
  EXPECT_NE(message({}).find("empty"), std::string::npos);
  EXPECT_NE(message({.prompt = {2048}}).find("2048"), std::string::npos);
  EXPECT_NE(message({.prompt = Ids(64, 1)}).find("--max-context"), std::string::npos);
  Request hot{.prompt = {1}};
  hot.sampling.temperature = -1.0f;
  EXPECT_NE(message(hot).find("temperature"), std::string::npos);
  EXPECT_FALSE(Engine::Create(LoadOrFail(Mini()), {.max_context = 1u << 20}).ok());
}

TEST(EngineTest, RunsToTheEndOfTheContext) {
  const auto engine = MakeEngine(Mini(), {.max_context = 40});
  const auto id = engine->Submit(Greedy(Ids(30, 1), 0));
  const Answer answer = RunAll(*engine)[*id];
  EXPECT_EQ(answer.tokens.size(), 10u);
  EXPECT_EQ(answer.finish, FinishReason::kLength);
}

}  // namespace
}  // namespace cachalot::testing
