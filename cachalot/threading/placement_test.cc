// SPDX-License-Identifier: Apache-2.0
#include "cachalot/threading/placement.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <vector>

#include "cachalot/threading/thread_pool.h"
#include "cachalot/threading/topology.h"

namespace cachalot {
namespace {

// Two nodes of so many cores, whatever this machine is.
std::vector<Core> TwoNodes(uint32_t each) {
  std::vector<Core> cores;
  for (uint32_t i = 0; i < 2 * each; ++i) cores.push_back({.cpu = i, .node = i / each});
  return cores;
}

std::vector<uint32_t> Nodes(const Placement& placement) {
  std::vector<uint32_t> nodes;
  for (const Core& core : placement.workers) nodes.push_back(core.node);
  return nodes;
}

TEST(TopologyTest, SimulatedMachinesHaveTheirCoresByNode) {
#ifndef CACHALOT_HAS_HWLOC  // cross builds only, see CMakeLists.txt
  GTEST_SKIP() << "this build has no hwloc";
#endif
  const std::vector<Core> cores = PhysicalCores("numa:2 core:3 pu:2");
  ASSERT_EQ(cores.size(), 6u) << "hyperthreads count once";
  for (uint32_t i = 0; i < cores.size(); ++i) {
    EXPECT_EQ(cores[i].cpu, 2 * i);
    EXPECT_EQ(cores[i].node, i / 3);
  }
}

TEST(TopologyTest, WhatHwlocDoesNotUnderstandIsOneNode) {
  const std::vector<Core> cores = PhysicalCores("no such machine");
  EXPECT_GE(cores.size(), 1u);
  for (const Core& core : cores) EXPECT_EQ(core.node, 0u);
}

TEST(PlacementTest, ThreadsAreSpreadOverNodesEvenly) {
  const std::vector<Core> cores = TwoNodes(4);
  EXPECT_EQ(Nodes(PlaceWorkers(cores, 8, Pinning::kAuto)),
            (std::vector<uint32_t>{0, 0, 0, 0, 1, 1, 1, 1}));
  EXPECT_EQ(Nodes(PlaceWorkers(cores, 2, Pinning::kAuto)), (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(Nodes(PlaceWorkers(cores, 1, Pinning::kAuto)), (std::vector<uint32_t>{0}));
  EXPECT_EQ(PlaceWorkers(cores, 17, Pinning::kOn).workers.size(), 17u);
}

TEST(PlacementTest, WorkersOfANodeHaveCoresOfTheirOwn) {
  const std::vector<Core> cores = TwoNodes(4);
  const Placement placement = PlaceWorkers(cores, 4, Pinning::kAuto);
  EXPECT_EQ(placement.Cpus(0), (std::vector<uint32_t>{0, 2}));
  EXPECT_EQ(placement.Cpus(1), (std::vector<uint32_t>{4, 6}));
}

TEST(PlacementTest, AutoPinsWhereThreadsTakeEveryCoreOfSeveralNodes) {
  EXPECT_FALSE(PlaceWorkers(std::vector<Core>(4), 4, Pinning::kAuto).pinned) << "one node";
  const std::vector<Core> cores = TwoNodes(2);
  EXPECT_TRUE(PlaceWorkers(cores, 4, Pinning::kAuto).pinned);
  EXPECT_FALSE(PlaceWorkers(cores, 3, Pinning::kAuto).pinned) << "others may take the same three";
  EXPECT_FALSE(PlaceWorkers(cores, 5, Pinning::kAuto).pinned);
  EXPECT_TRUE(PlaceWorkers(cores, 3, Pinning::kOn).pinned);
  EXPECT_FALSE(PlaceWorkers(cores, 5, Pinning::kOn).pinned) << "two would share a core for good";
  EXPECT_FALSE(PlaceWorkers(cores, 4, Pinning::kOff).pinned);
}

TEST(NodePartsTest, EveryThingIsOfOnePartInProportionToWorkers) {
  const NodeParts parts({0, 3, 4});
  EXPECT_EQ(parts.num(), 2u);
  for (size_t n : {0u, 1u, 3u, 4u, 64u, 1000u}) {
    EXPECT_EQ(parts.Begin(n, 0), 0u);
    EXPECT_EQ(parts.Begin(n, 1), n * 3 / 4);
    EXPECT_EQ(parts.Begin(n, 2), n);
  }
  EXPECT_EQ(parts.PartOf(0), 0u);
  EXPECT_EQ(parts.PartOf(2), 0u);
  EXPECT_EQ(parts.PartOf(3), 1u);
}

// A pool on a machine of two nodes that this one is not: nothing may depend on them but speed.
TEST(PlacementTest, PoolOfTwoNodesRunsEveryTaskOnce) {
  for (size_t threads : {2u, 3u, 5u}) {
    ThreadPool pool(PlaceWorkers(TwoNodes(4), threads, Pinning::kOff));
    EXPECT_EQ(pool.parts().num(), 2u);
    std::vector<std::atomic<int>> runs(1000);
    pool.ParallelFor(runs.size(), [&](size_t task, size_t) { ++runs[task]; });
    for (const auto& count : runs) EXPECT_EQ(count, 1);
  }
}

TEST(PlacementTest, PinnedWorkersMayRunOnTheirCoreOnly) {
  const Core core = PhysicalCores().back();
  ThreadPool pool({.workers = {core, core, core}, .pinned = true});
  std::vector<cpu_set_t> allowed(pool.num_threads());
  // Until each worker has had a task: a fast one may run them all.
  for (size_t met = 0; met < 2;) {
    std::vector<std::atomic<int>> ran(pool.num_threads());
    pool.ParallelFor(100, [&](size_t, size_t worker) {
      sched_getaffinity(0, sizeof(cpu_set_t), &allowed[worker]);
      ran[worker] = 1;
      sched_yield();
    });
    met = static_cast<size_t>(ran[1] + ran[2]);
  }
  for (size_t worker : {1u, 2u}) {
    EXPECT_EQ(CPU_COUNT(&allowed[worker]), 1);
    EXPECT_TRUE(CPU_ISSET(core.cpu, &allowed[worker]));
  }
}

// Pinning to a CPU that is not there is refused by the system and changes nothing.
TEST(PlacementTest, PinsAreWishes) {
  ThreadPool pool({.workers = {{.cpu = 0}, {.cpu = 4000}}, .pinned = true});
  std::atomic<int> runs = 0;
  pool.ParallelFor(10, [&](size_t, size_t) { ++runs; });
  EXPECT_EQ(runs, 10);
}

}  // namespace
}  // namespace cachalot
