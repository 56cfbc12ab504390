// SPDX-License-Identifier: Apache-2.0
// Streamed experts against resident ones: the same bits whatever the budget, the policy, the order
// in which reads come back and what was guessed; faults end what needed them and nothing else.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>

#include "cachalot/base/rng.h"
#include "cachalot/stream/faulty_queue.h"
#include "cachalot/stream/load.h"
#include "tests/integration/model_harness.h"

namespace cachalot::testing {
namespace {

using stream::FatePlan;
using stream::ReadFate;

struct StreamCase {
  const char* model;
  model::Numerics numerics;
  bool mtp;
};

class Streaming : public ::testing::TestWithParam<StreamCase> {
 protected:
  void SetUp() override {
    mapped_ = LoadOrFail(std::string(CACHALOT_SOURCE_DIR) + GetParam().model);
    ASSERT_NE(mapped_, nullptr);
    sizes_ = stream::MeasureStream(*mapped_);
  }

  static stream::StreamOptions Options(uint64_t seed, uint64_t num_slots, FatePlan plan) {
    constexpr stream::PolicyKind kKinds[] = {stream::PolicyKind::kLru, stream::PolicyKind::kLfu,
                                             stream::PolicyKind::kCost};
    stream::StreamOptions options;
    options.cache.num_slots = num_slots;
    options.cache.policy = kKinds[seed % 3];
    options.cache.half_life = 1.0 + static_cast<double>(CounterRandom(seed, 4, 0) % 100);
    options.cache.prefetch = seed % 4 != 3;
    options.cache.reader.depth = 1 + static_cast<uint32_t>(CounterRandom(seed, 5, 0) % 20);
    options.cache.reader.piece_bytes = 4096 * (1 + CounterRandom(seed, 6, 0) % 8);
    options.cache.reader.new_queue = [plan, seed](uint32_t depth) {
      return std::make_unique<stream::FaultyQueue>(depth, plan, seed);
    };
    return options;
  }
  RunResult Run(std::shared_ptr<const model::Weights> weights, uint32_t chunk, size_t count) const {
    const uint32_t vocab = mapped_->config.vocab_size;
    RunOptions options{.numerics = GetParam().numerics, .num_threads = 2, .chunk = chunk};
    if (GetParam().mtp) options.mtp_next = MakeIds(count, vocab, 3);
    return RunIds(std::move(weights), MakeIds(count, vocab, 1), options);
  }

  const FatePlan fine_ = [](uint64_t, uint64_t) { return ReadFate{}; };
  std::shared_ptr<const model::Weights> mapped_;
  stream::StreamSizes sizes_;
};

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

TEST_P(Streaming, TwentyBudgetsGiveTheSameBits) {
  constexpr size_t kTokens = 90;
  const RunResult want = Run(mapped_, 0, kTokens);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const uint64_t most = seed == 0 ? stream::kMinSlots : sizes_.num_experts;
    const uint64_t slots =
        stream::kMinSlots + CounterRandom(seed, 1, 0) % (most - stream::kMinSlots + 1);
    const auto streamed = stream::StreamWeights(*mapped_, Options(seed, slots, fine_));
    ASSERT_TRUE(streamed.ok()) << streamed.error().message;
    const uint32_t chunks[] = {1, 7, 32, 0};
    const RunResult got = Run(*streamed, chunks[CounterRandom(seed, 2, 0) % 4], kTokens);
    EXPECT_TRUE(SameBits(want.logits, got.logits)) << "seed " << seed << ", " << slots << " slots";
    EXPECT_TRUE(SameBits(want.mtp_logits, got.mtp_logits)) << "seed " << seed;
  }
}

TEST_P(Streaming, AChunkReadsEachExpertOnce) {
  auto options = Options(0, std::max<uint64_t>(stream::kMinSlots, sizes_.num_experts / 4), fine_);
  options.cache.prefetch = true;
  const auto streamed = stream::StreamWeights(*mapped_, options);
  ASSERT_TRUE(streamed.ok()) << streamed.error().message;
  Run(*streamed, 0, 90);
  const model::ExpertStats stats = (*streamed)->expert_source->stats();
  uint64_t wanted = 0;
  for (const auto& layer : stats.layers) wanted += layer.wanted;
  EXPECT_GT(wanted, 0u);
  EXPECT_LE(stats.read_bytes, (wanted + stats.guessed) * stats.slot_bytes);
  EXPECT_EQ(stats.failures, 0u);
}

TEST_P(Streaming, RepairedReadsGiveTheSameBits) {
  const RunResult want = Run(mapped_, 0, 40);
  auto options = Options(1, sizes_.num_experts / 3, [n = uint64_t{0}](uint64_t, uint64_t) mutable {
    const uint64_t i = n++;
    return ReadFate{.error = i % 5 == 0 ? EIO : 0, .cut = i % 5 == 3};
  });
  options.cache.reader.attempts = 60;
  const auto streamed = stream::StreamWeights(*mapped_, options);
  ASSERT_TRUE(streamed.ok()) << streamed.error().message;
  EXPECT_TRUE(SameBits(want.logits, Run(*streamed, 9, 40).logits));
  EXPECT_GT((*streamed)->expert_source->stats().retries, 0u);
}

// Several sequences in a step; the reads of one expert fail: only the sequences that chose it are
// told so, the others have their bits.
TEST_P(Streaming, AFaultIsOnlyTheirsWhoNeededIt) {
  auto broken = std::make_shared<bool>(false);
  auto lost = std::make_shared<uint64_t>(UINT64_MAX);  // the offset that fails, once known
  const auto plan = [broken, lost](uint64_t, uint64_t offset) {
    if (*broken && *lost == UINT64_MAX) *lost = offset;
    return ReadFate{.error = *broken && offset == *lost ? EIO : 0};
  };
  auto options = Options(3, stream::kMinSlots, plan);
  const auto streamed = stream::StreamWeights(*mapped_, options);
  ASSERT_TRUE(streamed.ok()) << streamed.error().message;

  constexpr size_t kSequences = 12;
  const RunOptions run{.numerics = GetParam().numerics, .num_threads = 2};
  const uint32_t vocab = mapped_->config.vocab_size;
  const Ids ids = MakeIds(kSequences, vocab, 9);
  const auto step = [&](std::shared_ptr<const model::Weights> weights, std::vector<uint8_t>* failed,
                        std::vector<float>& logits) {
    ModelRunner runner(std::move(weights), run, kSequences, kSequences);
    std::vector<std::unique_ptr<kvcache::Sequence>> sequences;
    std::vector<model::SequenceInput> inputs;
    Ids rows;
    for (size_t i = 0; i < kSequences; ++i) {
      sequences.push_back(runner.NewSequence());
      EXPECT_TRUE(sequences.back()->Reserve(1).ok());
      inputs.push_back({.sequence = sequences.back().get(), .tokens = {&ids[i], 1}});
      rows.push_back(static_cast<uint32_t>(i));
    }
    logits.resize(kSequences * vocab);
    model::ForwardOutputs outputs{.logit_rows = rows, .logits = {logits.data(), kSequences, vocab}};
    if (failed != nullptr) outputs.failed = *failed;
    return runner.forward().Step(inputs, outputs);
  };
  std::vector<float> want, got;
  ASSERT_TRUE(step(mapped_, nullptr, want).ok());
  *broken = true;
  std::vector<uint8_t> failed(kSequences, 2);
  ASSERT_TRUE(step(*streamed, &failed, got).ok());
  const auto num_failed = std::ranges::count(failed, 1);
  EXPECT_GT(num_failed, 0);
  EXPECT_EQ(std::ranges::count(failed, 0) + num_failed, static_cast<ptrdiff_t>(kSequences));
  for (size_t i = 0; i < kSequences; ++i) {
    if (failed[i] != 0) continue;
    EXPECT_TRUE(SameBits(std::span(want).subspan(i * vocab, vocab),
                         std::span(got).subspan(i * vocab, vocab)))
        << "sequence " << i;
  }
  // Who does not ask gets the error; and once the disk is well again, everything is.
  const Status status = step(*streamed, nullptr, got);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  *broken = false;
  ASSERT_TRUE(step(*streamed, &failed, got).ok());
  EXPECT_EQ(std::ranges::count(failed, 1), 0);
  EXPECT_TRUE(SameBits(want, got));
}

INSTANTIATE_TEST_SUITE_P(
    All, Streaming,
    ::testing::Values(StreamCase{"/tests/golden/tiny-flash", model::Numerics::kFast, true},
                      StreamCase{"/tests/golden/tiny-flash", model::Numerics::kOfficial, false},
                      StreamCase{"/models/mini", model::Numerics::kFast, false}),
    [](const auto& test) {
      return std::string(test.param.model).substr(test.param.model[1] == 't' ? 14 : 8, 4) +
             std::string(model::NumericsName(test.param.numerics));
    });

}  // namespace
}  // namespace cachalot::testing
