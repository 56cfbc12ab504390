// SPDX-License-Identifier: Apache-2.0
#include "cachalot/threading/thread_pool.h"

#include "cachalot/base/check.h"
#include "cachalot/threading/cpu_list.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cachalot {
namespace {

// Between pauses, give the core away now and then: with more threads than cores the one that has
// the work must be able to run.
constexpr int kSpinsPerYield = 64;

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(size_t num_threads, int spin_iterations)
    : ThreadPool(Placement{.workers = std::vector<Core>(num_threads)}, spin_iterations) {}

ThreadPool::ThreadPool(const Placement& placement, int spin_iterations)
    : spin_iterations_(spin_iterations),
      parts_(placement.Parts()),
      scratch_(placement.workers.size()),
      ranges_(placement.workers.size()) {
  CACHALOT_CHECK(!placement.workers.empty());
  threads_.reserve(placement.workers.size() - 1);
  for (size_t worker = 1; worker < placement.workers.size(); ++worker) {
    threads_.emplace_back([this, worker, core = placement.workers[worker], pin = placement.pinned] {
      if (pin) RestrictToCpus({core.cpu}).IgnoreError("it runs as well where the system puts it");
      WorkerLoop(worker);
    });
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
}

void ThreadPool::ParallelFor(size_t num_tasks, TaskRef task) {
  if (num_tasks == 0) return;
  if (threads_.empty() || num_tasks == 1) {
    for (size_t i = 0; i < num_tasks; ++i) task(i, 0);
    return;
  }
  task_ = &task;
  size_t begin = 0;
  for (size_t w = 0; w < ranges_.size(); ++w) {
    // Relaxed: published to the workers by the release on generation_.
    ranges_[w].next.store(begin, std::memory_order_relaxed);
    begin += num_tasks / ranges_.size() + (w < num_tasks % ranges_.size() ? 1 : 0);
    ranges_[w].end = begin;
  }
  num_running_.store(static_cast<uint32_t>(threads_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  RunTasks(0);
  for (uint32_t left = num_running_.load(std::memory_order_acquire); left != 0;) {
    left = WaitForChange(num_running_, left);
  }
}

uint8_t* ThreadPool::WorkerScratch(size_t worker, size_t bytes) {
  AlignedBuffer<uint8_t>& scratch = scratch_[worker];
  if (scratch.size() < bytes) scratch = AlignedBuffer<uint8_t>(bytes);
  return scratch.data();
}

// Spins until `value` differs from `old`, then sleeps in the kernel. Returns the new value.
uint32_t ThreadPool::WaitForChange(const std::atomic<uint32_t>& value, uint32_t old) const {
  for (int i = 1; i <= spin_iterations_; ++i) {
    const uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    Pause();
    if (i % kSpinsPerYield == 0) std::this_thread::yield();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

void ThreadPool::WorkerLoop(size_t worker) {
  uint32_t seen = 0;
  for (;;) {
    seen = WaitForChange(generation_, seen);
    if (stop_) return;
    RunTasks(worker);
    if (num_running_.fetch_sub(1, std::memory_order_acq_rel) == 1) num_running_.notify_one();
  }
}

void ThreadPool::RunTasks(size_t worker) {
  const size_t part = parts_.PartOf(worker);
  const size_t begin = parts_.first_worker(part);
  const size_t size = parts_.first_worker(part + 1) - begin;
  for (size_t k = 0; k < size; ++k) RunRange(ranges_[begin + (worker - begin + k) % size], worker);
  const size_t others = ranges_.size() - size;
  for (size_t k = 0; k < others; ++k)
    RunRange(ranges_[(begin + size + k) % ranges_.size()], worker);
}

void ThreadPool::RunRange(Range& range, size_t worker) {
  for (;;) {
    // Relaxed: only hands out indices; the data is ordered by generation_/num_running_.
    const size_t i = range.next.fetch_add(1, std::memory_order_relaxed);
    if (i >= range.end) return;
    (*task_)(i, worker);
  }
}

}  // namespace cachalot
