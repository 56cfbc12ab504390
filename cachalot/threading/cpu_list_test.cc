// SPDX-License-Identifier: Apache-2.0
#include "cachalot/threading/cpu_list.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

#include "cachalot/threading/topology.h"

namespace cachalot {
namespace {

TEST(CpuList, NumbersAndRanges) {
  EXPECT_EQ(*ParseCpuList("0"), std::vector<uint32_t>{0});
  EXPECT_EQ(*ParseCpuList("5,0,2-4,3"), (std::vector<uint32_t>{0, 2, 3, 4, 5}));
  EXPECT_EQ(*ParseCpuList("4095"), std::vector<uint32_t>{4095});
}

TEST(CpuList, AnythingElseIsRefused) {
  for (const char* bad : {"", ",", "1,", "a", "3-1", "-1", "1-", "4096", "1-4096", "1--2", " 1"}) {
    const auto cpus = ParseCpuList(bad);
    ASSERT_FALSE(cpus.ok()) << bad;
    EXPECT_EQ(cpus.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(CpuList, ThreadsStartedLaterStayOnTheCpus) {
  // In a thread of its own, whose affinity ends with it.
  std::thread([] {
    cpu_set_t all;
    ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
    uint32_t cpu = 0;
    while (!CPU_ISSET(cpu, &all)) ++cpu;
    ASSERT_TRUE(RestrictToCpus({cpu}).ok());
    std::thread([cpu] { EXPECT_EQ(sched_getcpu(), static_cast<int>(cpu)); }).join();
  }).join();
}

TEST(CpuList, CpusThatAreNotThereAreRefused) {
  std::thread([] {
    const Status status = RestrictToCpus({4095});
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  }).join();
}

}  // namespace
}  // namespace cachalot
