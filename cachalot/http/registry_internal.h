// SPDX-License-Identifier: Apache-2.0
// The open connections of a server: counted against the limit, drained and cut at Stop.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "cachalot/http/connection_internal.h"

namespace cachalot::http {

class Registry {
 public:
  using List = std::vector<std::shared_ptr<Connection>>;

  // False once StopAdding was called.
  bool Add(std::shared_ptr<Connection> connection) {
    const std::lock_guard lock(mutex_);
    if (!adding_) return false;
    Connection* key = connection.get();
    open_.emplace(key, std::move(connection));
    return true;
  }

  void Remove(Connection* connection) {
    const std::lock_guard lock(mutex_);
    open_.erase(connection);
    if (open_.empty()) empty_.notify_all();
  }

  size_t size() const {
    const std::lock_guard lock(mutex_);
    return open_.size();
  }

  List All() const {
    const std::lock_guard lock(mutex_);
    return Copy();
  }

  List StopAdding() {
    const std::lock_guard lock(mutex_);
    adding_ = false;
    return Copy();
  }

  // False: connections are left at `until`; time_point::max() waits without limit.
  bool WaitEmpty(std::chrono::steady_clock::time_point until) {
    std::unique_lock lock(mutex_);
    const auto is_empty = [this] { return open_.empty(); };
    if (until != std::chrono::steady_clock::time_point::max()) {
      return empty_.wait_until(lock, until, is_empty);
    }
    empty_.wait(lock, is_empty);
    return true;
  }

 private:
  List Copy() const {
    List out;
    for (const auto& [key, connection] : open_) out.push_back(connection);
    return out;
  }

  mutable std::mutex mutex_;  // guards all below
  std::condition_variable empty_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> open_;
  bool adding_ = true;
};

}  // namespace cachalot::http
