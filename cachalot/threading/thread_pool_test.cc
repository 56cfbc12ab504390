// SPDX-License-Identifier: Apache-2.0
#include "cachalot/threading/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <set>
#include <vector>

namespace cachalot {
namespace {

// More threads than this machine has cores, too: then workers must give way while they wait.
constexpr size_t kThreadCounts[] = {1, 2, 3, 17};

TEST(ThreadPoolTest, RunsEveryTaskOnceAndItsWritesAreVisible) {
  for (size_t threads : kThreadCounts) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (size_t num_tasks : {0u, 1u, 2u, 3u, 16u, 1000u}) {
      std::vector<int> runs(num_tasks);  // not atomic on purpose: tsan watches the hand-over
      pool.ParallelFor(num_tasks, [&](size_t task, size_t worker) {
        ASSERT_LT(worker, threads);
        ++runs[task];
      });
      for (int count : runs) EXPECT_EQ(count, 1);
    }
  }
}

TEST(ThreadPoolTest, ManyShortRegionsLoseNothing) {
  for (size_t threads : kThreadCounts) {
    ThreadPool pool(threads);
    std::vector<uint64_t> sums(5);
    constexpr uint64_t kRegions = 2000;
    for (uint64_t region = 0; region < kRegions; ++region) {
      pool.ParallelFor(sums.size(), [&](size_t task, size_t) { sums[task] += region; });
    }
    for (uint64_t sum : sums) EXPECT_EQ(sum, kRegions * (kRegions - 1) / 2);
  }
}

TEST(ThreadPoolTest, AWorkerRunsOneTaskAtATimeOnItsOwnScratch) {
  constexpr size_t kThreads = 5;
  ThreadPool pool(kThreads);
  std::vector<uint8_t*> scratch(kThreads);
  for (size_t bytes : {1u, 64u, 1000u, 10000u}) {
    pool.ParallelFor(200, [&](size_t task, size_t worker) {
      uint8_t* mine = pool.WorkerScratch(worker, bytes);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(mine) % 64, 0u);
      const uint8_t mark = static_cast<uint8_t>(task);
      for (size_t i = 0; i < bytes; ++i) mine[i] = mark;
      for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(mine[i], mark);
      scratch[worker] = mine;
    });
    std::set<uint8_t*> distinct;
    for (size_t worker = 0; worker < kThreads; ++worker) {
      distinct.insert(pool.WorkerScratch(worker, bytes));
    }
    EXPECT_EQ(distinct.size(), kThreads);
  }
}

TEST(ThreadPoolTest, ScratchThatIsLargeEnoughStays) {
  ThreadPool pool(1);
  uint8_t* first = pool.WorkerScratch(0, 1000);
  EXPECT_EQ(pool.WorkerScratch(0, 10), first);
  EXPECT_EQ(pool.WorkerScratch(0, 1000), first);
}

TEST(ThreadPoolTest, TasksAreHandedOutInOrder) {
  ThreadPool pool(1);
  std::vector<size_t> order;
  pool.ParallelFor(10, [&](size_t task, size_t) { order.push_back(task); });
  for (size_t i = 0; i < order.size(); ++i) EXPECT_EQ(order[i], i);
}

TEST(ThreadPoolTest, UnevenTasksAreShared) {
  // The first task waits until all others have run: possible only if another worker takes them.
  ThreadPool pool(2);
  constexpr uint32_t kOthers = 20;
  std::atomic<uint32_t> done{0};
  pool.ParallelFor(kOthers + 1, [&](size_t task, size_t) {
    if (task != 0) {
      if (done.fetch_add(1) + 1 == kOthers) done.notify_all();
      return;
    }
    for (uint32_t seen = done.load(); seen != kOthers; seen = done.load()) done.wait(seen);
  });
  EXPECT_EQ(done.load(), kOthers);
}

TEST(ThreadPoolTest, StartsAndStopsWithoutWork) {
  for (int i = 0; i < 50; ++i) {
    const ThreadPool pool(1 + static_cast<size_t>(i) % 4);
  }
}

TEST(ThreadPoolTest, TwoPoolsDoNotDisturbEachOther) {
  ThreadPool outer(2);
  ThreadPool inner(2);
  std::vector<int> runs(30);
  for (size_t i = 0; i < 3; ++i) {
    outer.ParallelFor(1, [&](size_t, size_t) {
      inner.ParallelFor(10, [&](size_t task, size_t) { ++runs[i * 10 + task]; });
    });
  }
  for (int count : runs) EXPECT_EQ(count, 1);
}

TEST(AlignedBufferTest, IsAlignedAndZero) {
  for (size_t size : {0u, 1u, 15u, 16u, 17u, 1000u}) {
    const AlignedBuffer<float> buffer(size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % kCacheLineBytes, 0u);
    EXPECT_EQ(buffer.size(), size);
    for (float v : buffer.span()) EXPECT_EQ(v, 0.0f);
  }
}

}  // namespace
}  // namespace cachalot
