// SPDX-License-Identifier: Apache-2.0
// The threads that run the Handler, so that parsing a large body never holds up the sockets. Its
// queue needs no bound of its own: a connection has one exchange at a time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace cachalot::http {

class WorkerPool {
 public:
  using Task = std::function<void()>;

  explicit WorkerPool(uint32_t num_threads);
  ~WorkerPool();

  void Post(Task task);  // after Stop: dropped
  void Stop();           // waits for running tasks, drops waiting ones; idempotent

 private:
  WorkerPool() = default;
  void Run();

  std::mutex mutex_;  // guards tasks_ and stopping_
  std::condition_variable wake_;
  std::deque<Task> tasks_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace cachalot::http
