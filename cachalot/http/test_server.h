// SPDX-License-Identifier: Apache-2.0
// For tests: a server on a free port whose handler answers a few fixed paths and hands the rest to
// the test, and conditions to wait for.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "cachalot/http/server.h"
#include "cachalot/http/test_client.h"

namespace cachalot::http::testing {

// Set once, waited for with a limit that only a broken server reaches.
class Event {
 public:
  void Set() {
    const std::lock_guard lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  bool Wait(int count = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return count_ >= count; });
  }
  int count() {
    const std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

// /echo answers the body, /where "target?query"; /throw throws, /drop never answers; every other
// exchange waits in Next().
class TestServer {
 public:
  explicit TestServer(ServerOptions options = {}, Gate gate = {}) {
    options.port = 0;
    auto started = Server::Start(
        std::move(options), [this](std::shared_ptr<Exchange> e) { Handle(e); }, std::move(gate));
    EXPECT_TRUE(started.ok()) << started.error().message;
    server_ = std::move(started).value();
  }
  ~TestServer() { server_ = nullptr; }

  Server& server() { return *server_; }
  uint16_t port() const { return server_->port(); }
  void Destroy() { server_ = nullptr; }

  // The next exchange for the test to answer; null after ten seconds.
  std::shared_ptr<Exchange> Next() {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, std::chrono::seconds(10), [&] { return !waiting_.empty(); });
    if (waiting_.empty()) return nullptr;
    auto next = std::move(waiting_.front());
    waiting_.pop_front();
    return next;
  }

 private:
  void Handle(const std::shared_ptr<Exchange>& exchange) {
    const Request& request = exchange->request();
    if (request.target == "/echo") return exchange->Reply({.body = exchange->TakeBody()});
    if (request.target == "/where") {
      return exchange->Reply({.body = request.target + "?" + request.query});
    }
    if (request.target == "/throw") throw std::runtime_error("handler failed");
    if (request.target == "/drop") return;
    const std::lock_guard lock(mutex_);
    waiting_.push_back(exchange);
    arrived_.notify_all();
  }

  std::mutex mutex_;  // guards waiting_
  std::condition_variable arrived_;
  std::deque<std::shared_ptr<Exchange>> waiting_;
  std::unique_ptr<Server> server_;
};

}  // namespace cachalot::http::testing
