// SPDX-License-Identifier: Apache-2.0
// Drafting and verifying: the output is that of plain decoding, token for token and bit for bit.
#include <gtest/gtest.h>

#include <map>

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
using engine::Speculation;

std::string Tiny() { return std::string(CACHALOT_SOURCE_DIR) + "/tests/golden/tiny-flash"; }
std::string Mini() { return std::string(CACHALOT_SOURCE_DIR) + "/models/mini"; }

struct Answer {
  Ids tokens;
  std::vector<float> logprobs;
  std::optional<FinishReason> finish;
};

struct Outcome {
  std::vector<Answer> answers;  // in the order of the requests
  engine::EngineStats stats;
};

Outcome RunAll(const std::string& dir, const std::vector<Request>& requests,
               const EngineOptions& options) {
  auto made = Engine::Create(LoadOrFail(dir), options);
  EXPECT_TRUE(made.ok()) << made.error().message;
  Engine& engine = **made;
  std::map<RequestId, size_t> index;
  for (size_t i = 0; i < requests.size(); ++i) index[*engine.Submit(requests[i])] = i;
  Outcome outcome{.answers = std::vector<Answer>(requests.size()), .stats = {}};
  while (engine.HasWork()) {
    const auto events = engine.Step();
    EXPECT_TRUE(events.ok()) << events.error().message;
    if (!events.ok()) break;
    for (const Event& event : *events) {
      Answer& answer = outcome.answers[index[event.request]];
      EXPECT_FALSE(answer.finish && event.token) << "a token after the end";
      if (event.token) answer.tokens.push_back(*event.token);
      if (event.logprobs) answer.logprobs.push_back(event.logprobs->chosen);
      if (event.finish) answer.finish = event.finish;
    }
  }
  outcome.stats = engine.stats();
  return outcome;
}

// Prompts around the window, blocks and the rewind; every kind of sampling; ends by length and by a
// stop token.
std::vector<Request> MakeRequests(uint32_t vocab) {
  std::vector<Request> requests;
  const float temperatures[] = {0.0f, 0.3f, 1.0f, 2.0f};
  for (uint32_t i = 0; i < 12; ++i) {
    Request request{.prompt = MakeIds(1 + 23 * i, vocab, 40 + i), .max_new_tokens = 1 + 9 * i};
    request.sampling.temperature = temperatures[i % 4];
    request.sampling.seed = i;
    if (i % 3 == 1) request.sampling.top_p = 0.8f;
    if (i % 3 == 2) request.sampling.frequency_penalty = 0.5f;
    if (i % 5 == 4) request.stop_tokens = MakeIds(40, vocab, 7);
    request.logprobs = true;
    requests.push_back(request);
  }
  return requests;
}

void ExpectSame(const Outcome& got, const Outcome& want) {
  for (size_t i = 0; i < want.answers.size(); ++i) {
    EXPECT_EQ(got.answers[i].tokens, want.answers[i].tokens) << "request " << i;
    EXPECT_EQ(got.answers[i].logprobs, want.answers[i].logprobs) << "request " << i;
    EXPECT_EQ(got.answers[i].finish, want.answers[i].finish) << "request " << i;
  }
}

TEST(Speculation, OutputIsThatOfPlainDecoding) {
  for (const std::string& dir : {Tiny(), Mini()}) {
    const auto requests = MakeRequests(LoadOrFail(dir)->config.vocab_size);
    const Outcome want = RunAll(
        dir, requests, {.num_threads = 1, .max_sequences = 1, .speculation = Speculation::kOff});
    EXPECT_EQ(want.stats.drafted_tokens, 0u);
    for (const uint32_t sequences : {1u, 5u}) {
      for (const uint32_t chunk : {3u, 64u}) {
        const Outcome got = RunAll(dir, requests,
                                   {.num_threads = 2,
                                    .max_sequences = sequences,
                                    .prefill_chunk = chunk,
                                    .speculation = Speculation::kOn});
        ExpectSame(got, want);
        EXPECT_GT(got.stats.drafted_tokens, 0u);
        EXPECT_GT(got.stats.accepted_tokens, 0u) << dir;
        EXPECT_LT(got.stats.accepted_tokens, got.stats.drafted_tokens) << dir;
      }
    }
  }
}

TEST(Speculation, ReferenceNumericsToo) {
  const auto requests = MakeRequests(LoadOrFail(Tiny())->config.vocab_size);
  const std::vector<Request> few(requests.begin(), requests.begin() + 6);
  EngineOptions options{.numerics = model::Numerics::kReference, .max_sequences = 2};
  options.speculation = Speculation::kOff;
  const Outcome want = RunAll(Tiny(), few, options);
  options.speculation = Speculation::kOn;
  ExpectSame(RunAll(Tiny(), few, options), want);
}

// A trained model guesses itself well; and remembered prefixes go on from speculated answers.
TEST(Speculation, PrefixesOfSpeculatedAnswersContinueTheSame) {
  Request request{.prompt = MakeIds(150, 2048, 3), .max_new_tokens = 90};
  request.sampling.temperature = 0.0f;
  const Outcome first = RunAll(Mini(), {request}, {.speculation = Speculation::kOff});
  auto made = Engine::Create(LoadOrFail(Mini()), {.speculation = Speculation::kOn});
  ASSERT_TRUE(made.ok());
  Ids conversation = request.prompt;
  for (int turn = 0; turn < 3; ++turn) {
    Request next{.prompt = conversation, .max_new_tokens = 30};
    next.sampling.temperature = 0.0f;
    next.cache = kvcache::CacheScope{1};
    ASSERT_TRUE((*made)->Submit(next).ok());
    uint32_t reused = 0;
    while ((*made)->HasWork()) {
      const auto events = (*made)->Step();
      ASSERT_TRUE(events.ok());
      for (const Event& event : *events) {
        reused = std::max(reused, event.reused);
        if (event.token) conversation.push_back(*event.token);
      }
    }
    if (turn > 0) {
      EXPECT_GE(reused + 2, next.prompt.size());
    }
  }
  Ids want = request.prompt;
  want.insert(want.end(), first.answers[0].tokens.begin(), first.answers[0].tokens.end());
  EXPECT_EQ(conversation, want);
}

TEST(Speculation, AskedForWithoutTheBlockIsRefused) {
  auto weights = std::make_shared<model::Weights>(*LoadOrFail(Mini()));
  weights->mtp.reset();
  const auto refused = Engine::Create(weights, {.speculation = Speculation::kOn});
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("MTP"), std::string::npos);
  EXPECT_TRUE(Engine::Create(weights, {.speculation = Speculation::kAuto}).ok());
}

}  // namespace
}  // namespace cachalot::testing
