// SPDX-License-Identifier: Apache-2.0
#include <exception>
#include <utility>

#include "cachalot/http/worker_pool_internal.h"

namespace cachalot::http {

// Delegating, so that the destructor joins the first threads if a later one cannot start.
WorkerPool::WorkerPool(uint32_t num_threads) : WorkerPool() {
  for (uint32_t i = 0; i < num_threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkerPool::~WorkerPool() { Stop(); }

void WorkerPool::Post(Task task) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void WorkerPool::Stop() {
  std::deque<Task> dropped;  // destroyed without the lock: a task may own an exchange
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    dropped.swap(tasks_);
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void WorkerPool::Run() {
  for (;;) {
    Task task;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (stopping_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    try {
      task();
    } catch (const std::exception&) {
      // No request may bring down the server. Dropping the task drops its exchange: a 500.
    }
  }
}

}  // namespace cachalot::http
