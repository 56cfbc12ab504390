// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/engine_loop.h"

#include <chrono>
#include <utility>

namespace cachalot::serve {
namespace {

// After a failed step (a file of the weights changed) nothing can run; requests are refused as they
// come, and the files are looked at again this often.
constexpr auto kRetry = std::chrono::milliseconds(200);

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Error Stopped() { return {ErrorCode::kUnavailable, "the server is shutting down"}; }

}  // namespace

EngineLoop::EngineLoop(std::unique_ptr<engine::Engine> engine)
    : engine_(std::move(engine)), stats_{.engine = engine_->stats()}, thread_([this] { Run(); }) {}

EngineLoop::~EngineLoop() { Stop(); }

bool EngineLoop::Post(Command command) {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return false;
    commands_.push_back(std::move(command));
  }
  wake_.notify_one();
  return true;
}

void EngineLoop::Submit(engine::Request request, std::shared_ptr<EngineClient> client) {
  ++pending_;
  const bool taken = Post([this, request = std::move(request), client]() mutable {
    const auto id = engine_->Submit(std::move(request));
    if (id.ok()) {
      clients_.emplace(*id, client);
    } else {
      Fail(*client, id.error());
    }
  });
  if (!taken) Fail(*client, Stopped());
}

void EngineLoop::Cancel(const std::shared_ptr<EngineClient>& client) {
  Post([this, client] {
    for (const auto& [id, owner] : clients_) {
      if (owner == client) engine_->Cancel(id);
    }
  });
}

void EngineLoop::PurgeCache(kvcache::CacheScope scope) {
  Post([this, scope] { engine_->PurgeCache(scope); });
}

bool EngineLoop::WaitIdle(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  return idle_.wait_until(lock, deadline, [this] { return pending_ == 0; });
}

void EngineLoop::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

LoopStats EngineLoop::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void EngineLoop::Run() {
  for (bool stopping = false;;) {
    std::vector<Command> commands;
    {
      std::unique_lock lock(mutex_);
      stats_ = {.engine = engine_->stats(), .reply_seconds = reply_seconds_};
      wake_.wait(lock, [this] { return stopping_ || !commands_.empty() || engine_->HasWork(); });
      commands.swap(commands_);
      // Only after a round that failed everybody: then Submit may fail what still comes by itself.
      ended_ = stopping && commands.empty();
      if (ended_) return;
      stopping = stopping_;
    }
    const auto begin = Clock::now();
    for (Command& command : commands) command();
    reply_seconds_ += SecondsSince(begin);
    if (stopping) {
      FailAll(Stopped());
    } else if (engine_->HasWork()) {
      Step();
    }
  }
}

void EngineLoop::Step() {
  const auto events = engine_->Step();
  if (!events.ok()) {
    FailAll(events.error());
    std::this_thread::sleep_for(kRetry);
    return;
  }
  const auto begin = Clock::now();
  for (const engine::Event& event : *events) Deliver(event);
  reply_seconds_ += SecondsSince(begin);
}

void EngineLoop::Deliver(const engine::Event& event) {
  const auto found = clients_.find(event.request);
  if (found == clients_.end()) return;
  const std::shared_ptr<EngineClient> client = found->second;
  if (event.finish) clients_.erase(found);
  if (event.error) {
    Fail(*client, *event.error);
  } else {
    client->OnEvent(event);
    if (event.finish) RequestEnded();
  }
}

void EngineLoop::FailAll(const Error& error) {
  const auto clients = std::exchange(clients_, {});
  for (const auto& [id, client] : clients) {
    engine_->Cancel(id);
    Fail(*client, error);
  }
}

void EngineLoop::Fail(EngineClient& client, const Error& error) {
  client.OnFailure(error);
  RequestEnded();
}

void EngineLoop::RequestEnded() {
  // Under the lock, so that WaitIdle cannot miss it between its look and its sleep.
  const std::lock_guard lock(mutex_);
  if (--pending_ == 0) idle_.notify_all();
}

}  // namespace cachalot::serve
