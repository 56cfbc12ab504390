// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/engine_loop.h"

#include <gtest/gtest.h>

#include <future>

namespace cachalot::serve {
namespace {

using std::chrono::steady_clock;
using namespace std::chrono_literals;

std::unique_ptr<engine::Engine> MiniEngine() {
  auto weights = model::LoadWeights(CACHALOT_SOURCE_DIR "/models/mini").value();
  return engine::Engine::Create(
             weights, {.num_threads = 1, .max_context = 4096, .kv_memory_bytes = 16 << 20})
      .value();
}

// Remembers how a request went; the futures are set on the loop's thread.
class Watcher : public EngineClient {
 public:
  void OnEvent(const engine::Event& event) override {
    if (event.token && num_tokens_++ == 0) first_token_.set_value();
    if (event.finish) finish_.set_value(*event.finish);
  }
  void OnFailure(const Error& error) override { failure_.set_value(error.code); }

  std::future<void> first_token() { return first_token_.get_future(); }
  std::future<engine::FinishReason> finish() { return finish_.get_future(); }
  std::future<ErrorCode> failure() { return failure_.get_future(); }

 private:
  int num_tokens_ = 0;
  std::promise<void> first_token_;
  std::promise<engine::FinishReason> finish_;
  std::promise<ErrorCode> failure_;
};

engine::Request Endless() { return {.prompt = {5, 6, 7}, .max_new_tokens = 4000}; }

TEST(EngineLoop, WaitsUntilNothingIsPending) {
  EngineLoop loop(MiniEngine());
  EXPECT_TRUE(loop.WaitIdle(steady_clock::now()));
  const auto watcher = std::make_shared<Watcher>();
  loop.Submit({.prompt = {5, 6, 7}, .max_new_tokens = 8}, watcher);
  EXPECT_TRUE(loop.WaitIdle(steady_clock::now() + 60s));
  EXPECT_EQ(watcher->finish().get(), engine::FinishReason::kLength);
  EXPECT_EQ(loop.pending(), 0u);
}

TEST(EngineLoop, GivesUpWaitingAtTheDeadline) {
  EngineLoop loop(MiniEngine());
  const auto watcher = std::make_shared<Watcher>();
  loop.Submit(Endless(), watcher);
  EXPECT_FALSE(loop.WaitIdle(steady_clock::now()));
  EXPECT_EQ(loop.pending(), 1u);
}

TEST(EngineLoop, FailsWhatRunsWhenItStopsAndWhatComesAfterwards) {
  EngineLoop loop(MiniEngine());
  const auto running = std::make_shared<Watcher>();
  loop.Submit(Endless(), running);
  running->first_token().get();
  loop.Stop();
  EXPECT_EQ(running->failure().get(), ErrorCode::kUnavailable);
  const auto late = std::make_shared<Watcher>();
  loop.Submit(Endless(), late);
  EXPECT_EQ(late->failure().get(), ErrorCode::kUnavailable);
  loop.Cancel(late);
  EXPECT_TRUE(loop.WaitIdle(steady_clock::now()));
}

TEST(EngineLoop, FailsWhatWasSubmittedJustBefore) {
  for (int i = 0; i < 20; ++i) {
    EngineLoop loop(MiniEngine());
    const auto watcher = std::make_shared<Watcher>();
    loop.Submit(Endless(), watcher);
    loop.Stop();
    EXPECT_EQ(watcher->failure().get(), ErrorCode::kUnavailable);
  }
}

TEST(EngineLoop, EndsACancelledRequest) {
  EngineLoop loop(MiniEngine());
  const auto watcher = std::make_shared<Watcher>();
  loop.Submit(Endless(), watcher);
  loop.Cancel(watcher);
  EXPECT_EQ(watcher->finish().get(), engine::FinishReason::kCancelled);
}

TEST(EngineLoop, RefusesWhatCouldNeverRun) {
  EngineLoop loop(MiniEngine());
  EXPECT_EQ(loop.Check({.prompt = {}}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(loop.Check({.prompt = std::vector<uint32_t>(5000, 5)}).error().code,
            ErrorCode::kResourceExhausted);
}

}  // namespace
}  // namespace cachalot::serve
