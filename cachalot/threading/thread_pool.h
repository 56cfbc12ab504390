// SPDX-License-Identifier: Apache-2.0
// The one thread pool. A forward pass runs about fifteen short parallel regions a layer, so a
// region must cost about a microsecond: workers spin between regions and sleep only after a while.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "cachalot/threading/aligned_buffer.h"
#include "cachalot/threading/placement.h"

namespace cachalot {

// Non-owning reference to a callable void(size_t task, size_t worker); no allocation.
class TaskRef {
 public:
  template <typename F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, TaskRef>)
      TaskRef(F&& f)  // NOLINT: implicit, lives only for the call
      : object_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* object, size_t task, size_t worker) {
          (*static_cast<std::remove_reference_t<F>*>(object))(task, worker);
        }) {}
  void operator()(size_t task, size_t worker) const { call_(object_, task, worker); }

 private:
  void* object_;
  void (*call_)(void*, size_t, size_t);
};

class ThreadPool {
 public:
  // About 20 us of spinning on a 3 GHz core: longer than the serial gaps inside a layer, shorter
  // than anything a user would notice as load when the engine idles.
  static constexpr int kShortSpin = 2000;
  // About 2 ms: for a program that has nothing but one job to do (training). A sleeping worker took
  // 50 to 500 us to come back on a virtual machine (measured 2026-11-25), which a step of two
  // thousand regions pays at every serial gap longer than the spin.
  static constexpr int kLongSpin = 200000;

  // `num_threads` >= 1 workers including the calling thread, so 1 creates no thread. Threads spin
  // for `spin_iterations` pauses between regions before they sleep.
  // The system places them.
  explicit ThreadPool(size_t num_threads, int spin_iterations = kShortSpin);
  // One a worker of `placement`. Those that the pool starts stay on their cores if it says so; the
  // calling thread never does, since the threads it starts later would stay with it: it finds the
  // core that is left.
  explicit ThreadPool(const Placement& placement, int spin_iterations = kShortSpin);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t num_threads() const { return threads_.size() + 1; }
  // Memory nodes of the workers; one unless a placement said otherwise.
  const NodeParts& parts() const { return parts_; }

  // Calls task(i, worker) once for every i in [0, num_tasks), worker in [0, num_threads()), and
  // returns when all are done (their writes are visible). Each worker has a range of neighboring
  // tasks, begins at its front and then helps with the ranges of others, its own node's first: what
  // a task fetches ahead (the next rows of a matrix) is for the same worker. A result must not
  // depend on `worker` beyond using it to pick scratch. Not reentrant; one caller at a time.
  // Allocates nothing.
  void ParallelFor(size_t num_tasks, TaskRef task);

  // At least `bytes` of 64-byte aligned scratch that belong to `worker` until its next call here.
  // Contents are unspecified. Grows on demand, so the steady state allocates nothing. Call it from
  // the task that runs as `worker`, or outside of ParallelFor.
  uint8_t* WorkerScratch(size_t worker, size_t bytes);

 private:
  struct alignas(64) Range {
    std::atomic<size_t> next{0};
    size_t end = 0;
  };

  uint32_t WaitForChange(const std::atomic<uint32_t>& value, uint32_t old) const;
  void WorkerLoop(size_t worker);
  void RunTasks(size_t worker);
  void RunRange(Range& range, size_t worker);

  const int spin_iterations_;
  const NodeParts parts_;
  std::vector<AlignedBuffer<uint8_t>> scratch_;  // one a worker, touched by that worker only
  std::vector<std::jthread> threads_;
  // Written by the caller before generation_ is released, read by workers after they acquire it.
  const TaskRef* task_ = nullptr;
  std::vector<Range> ranges_;  // one a worker
  bool stop_ = false;
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<uint32_t> num_running_{0};
};

}  // namespace cachalot
