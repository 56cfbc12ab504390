// SPDX-License-Identifier: Apache-2.0
// The one thread that owns the engine: requests go in from any thread, events come out on it.
// [docs/design/serve.md]
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cachalot/engine/engine.h"

namespace cachalot::serve {

// Who asked for a request. Called on the loop's thread only, so its state needs no lock; once the
// loop has ended, OnFailure comes from within Submit.
class EngineClient {
 public:
  virtual ~EngineClient() = default;
  virtual void OnEvent(const engine::Event& event) = 0;
  // The request ended without an answer: refused, or the server stops (kUnavailable). No event
  // follows.
  virtual void OnFailure(const Error& error) = 0;
};

struct LoopStats {
  engine::EngineStats engine;
  // Wall time of the loop's thread outside the engine, waiting left out: events made text and JSON
  // and handed to HTTP, requests taken in. Beside engine.step_seconds it says what serving costs.
  double reply_seconds = 0;
};

// Thread-safe.
class EngineLoop {
 public:
  explicit EngineLoop(std::unique_ptr<engine::Engine> engine);
  ~EngineLoop();  // Stop()

  void Submit(engine::Request request, std::shared_ptr<EngineClient> client);
  // Ends the client's requests before the next step; events may still come until then.
  void Cancel(const std::shared_ptr<EngineClient>& client);
  void PurgeCache(kvcache::CacheScope scope);
  // Returns once nothing is pending, or at the deadline: whether nothing is.
  bool WaitIdle(std::chrono::steady_clock::time_point deadline);
  // Fails what is running or queued or still comes, ends the thread. Idempotent.
  void Stop();

  // Whether the request could ever run; its ids and parameters.
  Status Check(const engine::Request& request) const { return engine_->Check(request); }
  // Submitted and not ended.
  uint32_t pending() const { return pending_; }
  // As of the last step.
  LoopStats stats() const;

 private:
  using Command = std::function<void()>;
  bool Post(Command command);  // false once the loop has ended: it will not run
  void Run();
  void Step();
  void Deliver(const engine::Event& event);
  void FailAll(const Error& error);
  void Fail(EngineClient& client, const Error& error);
  void RequestEnded();

  std::unique_ptr<engine::Engine> engine_;
  std::map<engine::RequestId, std::shared_ptr<EngineClient>> clients_;  // the loop's thread only
  double reply_seconds_ = 0;                                            // the loop's thread only

  std::atomic<uint32_t> pending_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::vector<Command> commands_;
  LoopStats stats_;
  bool stopping_ = false;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace cachalot::serve
