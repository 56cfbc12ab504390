// SPDX-License-Identifier: Apache-2.0
// Promise 2 of design.md: the logits of a token are bitwise identical whatever the thread count,
// the prefill chunk, the prefill / decode split, the batch neighbors and rewinds before it.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/integration/model_harness.h"

namespace cachalot::testing {
namespace {

using model::Numerics;

// Deterministic ids without a generator in the test: a fixed multiplicative walk.
// Index of the first float whose bits differ, or -1.
ptrdiff_t FirstDifference(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) return static_cast<ptrdiff_t>(i);
  }
  return -1;
}

struct Case {
  const char* model;
  Numerics numerics;
};

class Invariance : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    weights_ = LoadOrFail(std::string(CACHALOT_SOURCE_DIR) + GetParam().model);
    ASSERT_NE(weights_, nullptr);
  }
  RunOptions Options(size_t threads, uint32_t chunk) const {
    return {.numerics = GetParam().numerics, .num_threads = threads, .chunk = chunk};
  }
  uint32_t vocab() const { return weights_->config.vocab_size; }

  std::shared_ptr<const model::Weights> weights_;
};

TEST_P(Invariance, ThreadsAndChunksDoNotChangeBits) {
  const Ids ids = MakeIds(150, vocab(), 1);
  const auto want = RunIds(weights_, ids, Options(1, 0)).logits;
  for (size_t threads : {1, 2, 3}) {
    for (uint32_t chunk : {1u, 7u, 64u, 0u}) {
      const auto got = RunIds(weights_, ids, Options(threads, chunk)).logits;
      EXPECT_EQ(FirstDifference(want, got), -1) << threads << " threads, chunk " << chunk;
    }
  }
}

TEST_P(Invariance, MtpChunksDoNotChangeBits) {
  const Ids ids = MakeIds(70, vocab(), 2);
  RunOptions options = Options(2, 0);
  options.mtp_next = MakeIds(70, vocab(), 3);
  const auto want = RunIds(weights_, ids, options).mtp_logits;
  options.chunk = 9;
  EXPECT_EQ(FirstDifference(want, RunIds(weights_, ids, options).mtp_logits), -1);
}

// Three sequences of different lengths, each prefilled in its own cut and decoded together.
TEST_P(Invariance, NeighborsDoNotChangeBits) {
  const std::vector<Ids> prompts = {MakeIds(140, vocab(), 4), MakeIds(37, vocab(), 5),
                                    MakeIds(131, vocab(), 6)};
  ModelRunner runner(weights_, Options(2, 0), 64, 3);
  std::vector<std::unique_ptr<kvcache::Sequence>> sequences;
  std::vector<std::vector<float>> got(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) sequences.push_back(runner.NewSequence());
  // Uneven cuts: in each step sequence i takes 1, 5 or 23 tokens while it has some.
  const size_t cuts[] = {23, 1, 5};
  for (size_t step = 0;; ++step) {
    std::vector<model::SequenceInput> inputs;
    std::vector<size_t> who;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const size_t done = sequences[i]->position();
      const size_t count = std::min(cuts[(step + i) % 3], prompts[i].size() - done);
      if (count == 0) continue;
      inputs.push_back(
          {.sequence = sequences[i].get(), .tokens = std::span(prompts[i]).subspan(done, count)});
      who.push_back(i);
    }
    if (inputs.empty()) break;
    const auto logits = runner.Step(inputs);
    size_t at = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const size_t size = inputs[i].tokens.size() * vocab();
      got[who[i]].insert(got[who[i]].end(), logits.begin() + static_cast<ptrdiff_t>(at),
                         logits.begin() + static_cast<ptrdiff_t>(at + size));
      at += size;
    }
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto want = RunIds(weights_, prompts[i], Options(1, 0)).logits;
    EXPECT_EQ(FirstDifference(want, got[i]), -1) << "sequence " << i;
  }
}

// Speculation: up to 16 rejected tokens leave no trace, across block and window edges.
TEST_P(Invariance, RewoundTokensLeaveNoTrace) {
  const Ids ids = MakeIds(180, vocab(), 7);
  const Ids wrong = MakeIds(16, vocab(), 8);
  const auto want = RunIds(weights_, ids, Options(1, 0)).logits;
  ModelRunner runner(weights_, Options(2, 0), 64);
  const auto sequence = runner.NewSequence();
  std::vector<float> got;
  for (size_t done = 0; done < ids.size();) {
    const size_t count = std::min<size_t>(13, ids.size() - done);
    const auto logits =
        runner.Step({{.sequence = sequence.get(), .tokens = std::span(ids).subspan(done, count)}});
    got.insert(got.end(), logits.begin(), logits.end());
    done += count;
    const size_t rejected = 1 + done % 16;
    runner.Step({{.sequence = sequence.get(), .tokens = std::span(wrong).first(rejected)}});
    ASSERT_TRUE(sequence->Rewind(static_cast<uint32_t>(rejected)).ok());
  }
  EXPECT_EQ(FirstDifference(want, got), -1);
}

INSTANTIATE_TEST_SUITE_P(Models, Invariance,
                         ::testing::Values(Case{"/tests/golden/tiny-flash", Numerics::kFast},
                                           Case{"/tests/golden/tiny-flash", Numerics::kReference},
                                           Case{"/models/mini", Numerics::kFast},
                                           Case{"/models/mini", Numerics::kReference}),
                         [](const auto& test) {
                           const bool mini = std::string(test.param.model) == "/models/mini";
                           return std::string(mini ? "mini_" : "tiny_") +
                                  std::string(model::NumericsName(test.param.numerics));
                         });

}  // namespace
}  // namespace cachalot::testing
