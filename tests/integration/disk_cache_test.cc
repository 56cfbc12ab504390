// SPDX-License-Identifier: Apache-2.0
// What an engine went on from disk with has the bits of a run without: logits of the answer, over
// random prefixes, hit lengths around block and period edges, all strategies and layer kinds.
#include <gtest/gtest.h>

#include <filesystem>

#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/base/temp_dir.h"
#include "cachalot/engine/engine.h"
#include "tests/integration/model_harness.h"

namespace cachalot::testing {
namespace {

namespace fs = std::filesystem;
using engine::DiskOptions;
using engine::Engine;
using engine::EngineOptions;
using engine::Request;

constexpr kvcache::CacheScope kScope{7};

std::string Tiny() { return std::string(CACHALOT_SOURCE_DIR) + "/tests/golden/tiny-flash"; }
std::string Mini() { return std::string(CACHALOT_SOURCE_DIR) + "/models/mini"; }

DiskOptions Disk(const std::string& dir, std::string_view strategy, uint64_t max_bytes = 1u << 30) {
  auto storage = diskcache::OpenDirectory(dir, true);
  EXPECT_TRUE(storage.ok()) << storage.error().message;
  auto store = diskcache::Store::Open(std::move(*storage), {.max_bytes = max_bytes});
  EXPECT_TRUE(store.ok()) << store.error().message;
  DiskOptions options{.store = std::move(*store), .min_tokens = 128};
  EXPECT_TRUE(engine::ParseWindowStrategy(strategy, options).ok());
  return options;
}

// Tokens of an answer with the exact logarithms of their probabilities and of others': any bit of
// a logit that differs shows.
struct Answer {
  Ids tokens;
  std::vector<float> logprobs;
  uint32_t reused = 0;

  bool SameBits(const Answer& other) const {
    return tokens == other.tokens && logprobs.size() == other.logprobs.size() &&
           std::memcmp(logprobs.data(), other.logprobs.data(), 4 * logprobs.size()) == 0;
  }
};

Answer Ask(Engine& engine, const Ids& prompt, uint32_t count) {
  Request request{.prompt = prompt, .max_new_tokens = count, .cache = kScope};
  request.sampling.seed = 3;
  request.logprobs = true;
  request.top_logprobs = 20;
  const auto id = engine.Submit(std::move(request));
  EXPECT_TRUE(id.ok()) << id.error().message;
  Answer answer;
  while (engine.HasWork()) {
    const auto events = engine.Step();
    EXPECT_TRUE(events.ok()) << events.error().message;
    if (!events.ok()) break;
    for (const engine::Event& event : *events) {
      answer.reused = std::max(answer.reused, event.reused);
      if (event.error) ADD_FAILURE() << event.error->message;
      if (!event.token) continue;
      answer.tokens.push_back(*event.token);
      answer.logprobs.push_back(event.logprobs->chosen);
      for (const auto& [token, logprob] : event.logprobs->top) answer.logprobs.push_back(logprob);
    }
  }
  return answer;
}

std::unique_ptr<Engine> Make(std::shared_ptr<const model::Weights> weights, DiskOptions disk,
                             model::Numerics numerics = model::Numerics::kFast) {
  EngineOptions options{.numerics = numerics, .num_threads = 1, .max_context = 4096};
  options.prefill_chunk = 200;
  options.disk = std::move(disk);
  auto engine = Engine::Create(std::move(weights), options);
  EXPECT_TRUE(engine.ok()) << engine.error().message;
  return std::move(engine).value();
}

Ids Join(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

struct Case {
  std::string model, strategy;
  model::Numerics numerics = model::Numerics::kFast;
};

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.model + "_" + info.param.strategy + "_" +
                     std::string(model::NumericsName(info.param.numerics));
  std::ranges::replace(name, ':', '_');
  return name;
}

class DiskContinuationTest : public ::testing::TestWithParam<Case> {};

// A first process reads a prompt and answers; a second one, with nothing in memory, gets prompts
// that share 0 .. all of it, cut around edges of entries, blocks and periods.
TEST_P(DiskContinuationTest, ContinuationHasTheBitsOfAnUncachedRun) {
  const Case& param = GetParam();
  const auto weights = LoadOrFail(param.model == "tiny" ? Tiny() : Mini());
  const uint32_t vocab = weights->config.vocab_size;
  const bool slow = param.numerics != model::Numerics::kFast;
  const size_t length = slow ? 520 : 1100;
  const TempDir dir;
  const Ids first = MakeIds(length + 37, vocab, 11);
  {
    const auto engine = Make(weights, Disk(dir.path(), param.strategy), param.numerics);
    Ask(*engine, first, 40);
  }
  std::vector<size_t> cuts = {length + 37, 512, 511, 516};
  if (!slow) {
    for (const size_t cut : {257, 640, 768, 895, 1024, 1029}) cuts.push_back(cut);
    for (uint64_t i = 0; i < 4; ++i) cuts.push_back(1 + CounterRandom(5, 5, i) % (length + 37));
  }
  uint32_t hits = 0;
  for (const size_t cut : cuts) {
    const Ids prompt = Join({first.begin(), first.begin() + static_cast<ptrdiff_t>(cut)},
                            MakeIds(1 + cut % 50, vocab, 90 + static_cast<uint32_t>(cut)));
    const auto cached = Make(weights, Disk(dir.path(), param.strategy), param.numerics);
    const auto plain = Make(weights, {}, param.numerics);
    const Answer with = Ask(*cached, prompt, 8);
    const Answer without = Ask(*plain, prompt, 8);
    EXPECT_TRUE(with.SameBits(without)) << "cut " << cut << " reused " << with.reused;
    EXPECT_EQ(without.reused, 0u);
    if (with.reused > 0) ++hits;
  }
  EXPECT_GE(hits, cuts.size() / 2);
}

INSTANTIATE_TEST_SUITE_P(Strategies, DiskContinuationTest,
                         ::testing::Values(Case{"tiny", "full"}, Case{"tiny", "periodic:256"},
                                           Case{"tiny", "periodic:1024"}, Case{"tiny", "zero"},
                                           Case{"mini", "full"}, Case{"mini", "periodic:512"},
                                           Case{"mini", "zero"},
                                           Case{"tiny", "zero", model::Numerics::kReference},
                                           Case{"tiny", "periodic:256", model::Numerics::kExact},
                                           Case{"tiny", "full", model::Numerics::kOfficial}),
                         CaseName);

// Turn by turn over restarts, each answer from the same store; the state at the end of an answer
// leaves only the new message to compute.
TEST(DiskCacheTest, AConversationGoesOnAfterRestarts) {
  const auto weights = LoadOrFail(Mini());
  const uint32_t vocab = weights->config.vocab_size;
  const TempDir dir;
  const auto plain = Make(weights, {});
  Ids talk = MakeIds(300, vocab, 1);
  for (uint32_t turn = 0; turn < 4; ++turn) {
    const auto engine = Make(weights, Disk(dir.path(), "periodic:4096"));
    const Answer with = Ask(*engine, talk, 33);
    EXPECT_TRUE(with.SameBits(Ask(*plain, talk, 33))) << "turn " << turn;
    // All but the message and the answer's last token, which was sampled and never fed; with
    // speculation the state before a rewound draft may be a token earlier.
    EXPECT_GE(with.reused + 20 + 3, turn > 0 ? talk.size() : 0);
    talk = Join(Join(talk, with.tokens), MakeIds(20, vocab, 50 + turn));
  }
}

// What was written under one strategy serves another.
TEST(DiskCacheTest, StrategiesShareADirectory) {
  const auto weights = LoadOrFail(Mini());
  const uint32_t vocab = weights->config.vocab_size;
  const TempDir dir;
  const Ids prompt = MakeIds(1200, vocab, 2);
  Ask(*Make(weights, Disk(dir.path(), "full")), prompt, 4);
  const Answer plain = Ask(*Make(weights, {}), prompt, 4);
  for (const char* strategy : {"zero", "periodic:256", "full"}) {
    const Answer with = Ask(*Make(weights, Disk(dir.path(), strategy)), prompt, 4);
    EXPECT_EQ(with.reused, 1152u) << strategy;
    EXPECT_TRUE(with.SameBits(plain)) << strategy;
  }
}

// The approximate strategy says so by leaving nothing behind.
TEST(DiskCacheTest, BoundedReplayIsNeverStored) {
  const auto weights = LoadOrFail(Mini());
  const uint32_t vocab = weights->config.vocab_size;
  const TempDir dir;
  const Ids first = MakeIds(1024, vocab, 3);
  Ask(*Make(weights, Disk(dir.path(), "zero")), first, 4);
  const Ids prompt = Join(first, MakeIds(600, vocab, 4));
  const DiskOptions disk = Disk(dir.path(), "bounded");
  const uint64_t blocks = disk.store->stats().blocks;
  const auto engine = Make(weights, disk);
  const Answer with = Ask(*engine, prompt, 20);
  EXPECT_EQ(with.reused, 1024 - weights->config.sliding_window);
  EXPECT_EQ(with.tokens.size(), 20u);
  EXPECT_TRUE(disk.store->Flush().ok());
  EXPECT_EQ(disk.store->stats().blocks, blocks);
  EXPECT_EQ(engine->stats().cache.checkpoints, 0u);
}

// Another scope, other numerics, another model find nothing; a purge leaves nothing.
TEST(DiskCacheTest, OnlyTheSameBitsAndTheSameScopeAreFound) {
  const auto weights = LoadOrFail(Tiny());
  const TempDir dir;
  const Ids prompt = MakeIds(600, weights->config.vocab_size, 5);
  Ask(*Make(weights, Disk(dir.path(), "full")), prompt, 4);
  EXPECT_EQ(
      Ask(*Make(weights, Disk(dir.path(), "full"), model::Numerics::kOfficial), prompt, 4).reused,
      0u);
  const auto engine = Make(weights, Disk(dir.path(), "full"));
  Request request{.prompt = prompt, .max_new_tokens = 1, .cache = kvcache::CacheScope{8}};
  ASSERT_TRUE(engine->Submit(std::move(request)).ok());
  while (engine->HasWork()) ASSERT_TRUE(engine->Step().ok());
  EXPECT_EQ(engine->stats().reused_tokens, 0u);
  engine->PurgeCache(kScope);
  EXPECT_EQ(Ask(*engine, prompt, 1).reused, 0u);
}

// A damaged record in the middle: what comes before it serves, the answer is the same.
TEST(DiskCacheTest, DamageOnDiskChangesNoAnswer) {
  const auto weights = LoadOrFail(Mini());
  const TempDir dir;
  const Ids prompt = MakeIds(1500, weights->config.vocab_size, 6);
  Ask(*Make(weights, Disk(dir.path(), "full")), prompt, 4);
  const Answer plain = Ask(*Make(weights, {}), prompt, 4);
  const uint64_t size = fs::file_size(dir.path() + "/seg-00000001.kv");
  for (uint64_t i = 0; i < 6; ++i) {
    std::FILE* file = std::fopen((dir.path() + "/seg-00000001.kv").c_str(), "r+b");
    ASSERT_NE(file, nullptr);
    std::fseek(file, static_cast<long>(CounterRandom(9, 9, i) % size), SEEK_SET);
    std::fputc(0x5A, file);
    std::fclose(file);
    const auto engine = Make(weights, Disk(dir.path(), "full"));
    EXPECT_TRUE(Ask(*engine, prompt, 4).SameBits(plain));
  }
}

// Streams go on while another's prefix is read, and the bits are the same.
TEST(DiskCacheTest, RestoringBesideRunningStreams) {
  const auto weights = LoadOrFail(Mini());
  const uint32_t vocab = weights->config.vocab_size;
  const TempDir dir;
  std::vector<Ids> prompts;
  for (uint32_t i = 0; i < 4; ++i) prompts.push_back(MakeIds(700 + 100 * i, vocab, 20 + i));
  {
    const auto engine = Make(weights, Disk(dir.path(), "periodic:512"));
    for (const Ids& prompt : prompts) Ask(*engine, prompt, 2);
  }
  EngineOptions options{.num_threads = 1, .max_context = 2048, .max_sequences = 4};
  options.disk = Disk(dir.path(), "periodic:512");
  auto engine = std::move(Engine::Create(weights, options)).value();
  std::map<engine::RequestId, size_t> index;
  for (size_t i = 0; i < prompts.size(); ++i) {
    Request request{.prompt = prompts[i], .max_new_tokens = 24, .cache = kScope};
    request.sampling.seed = 3;
    index[*engine->Submit(std::move(request))] = i;
  }
  std::vector<Ids> answers(prompts.size());
  while (engine->HasWork()) {
    const auto events = engine->Step();
    ASSERT_TRUE(events.ok());
    for (const auto& event : *events) {
      if (event.token) answers[index[event.request]].push_back(*event.token);
    }
  }
  EXPECT_EQ(engine->stats().disk_restores, prompts.size());
  const auto plain = Make(weights, {});
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(answers[i], Ask(*plain, prompts[i], 24).tokens) << i;
  }
}

// A budget of a few blocks and many texts: the store evicts, answers stay.
TEST(DiskCacheTest, ASmallBudgetChangesNoAnswer) {
  const auto weights = LoadOrFail(Tiny());
  const uint32_t vocab = weights->config.vocab_size;
  const TempDir dir;
  const auto plain = Make(weights, {});
  for (uint32_t i = 0; i < 12; ++i) {
    const auto engine = Make(weights, Disk(dir.path(), "full", 300'000));
    const Ids prompt = Join(MakeIds(400, vocab, i % 3), MakeIds(300, vocab, i));
    EXPECT_TRUE(Ask(*engine, prompt, 4).SameBits(Ask(*plain, prompt, 4))) << i;
  }
}

TEST(DiskCacheTest, PrefixesSeenOnceAreNotWrittenWithSecondSight) {
  const auto weights = LoadOrFail(Tiny());
  const TempDir dir;
  DiskOptions disk = Disk(dir.path(), "full");
  disk.second_sight = true;
  const auto engine = Make(weights, disk);
  const Ids prompt = MakeIds(600, weights->config.vocab_size, 5);
  Ask(*engine, prompt, 1);
  ASSERT_TRUE(disk.store->Flush().ok());
  EXPECT_EQ(disk.store->stats().blocks, 0u);
  Ask(*engine, prompt, 1);
  ASSERT_TRUE(disk.store->Flush().ok());
  EXPECT_GT(disk.store->stats().blocks, 0u);
}

TEST(DiskCacheTest, BadStrategiesAreRefused) {
  DiskOptions options;
  for (const char* text : {"", "periodic", "periodic:", "periodic:0", "periodic:100", "periodic:1x",
                           "periodic:-128", "always"}) {
    EXPECT_FALSE(engine::ParseWindowStrategy(text, options).ok()) << text;
  }
}

}  // namespace
}  // namespace cachalot::testing
