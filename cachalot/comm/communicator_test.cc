// SPDX-License-Identifier: Apache-2.0
#include "cachalot/comm/communicator.h"

#include <gtest/gtest.h>

#include <functional>
#include <thread>

namespace cachalot::comm {
namespace {

void OnRanks(uint32_t size, const std::function<void(Communicator&)>& body) {
  auto ranks = ThreadRanks(size);
  std::vector<std::jthread> threads;
  for (auto& rank : ranks) threads.emplace_back([&] { body(*rank); });
}

// Rank r sends r + 1 numbers to each, so that sizes differ; again and again, so that a rank that is
// ahead would be seen.
TEST(ThreadRanks, AllToAllBringsEveryPartToItsRank) {
  OnRanks(4, [](Communicator& comm) {
    for (uint32_t round = 0; round < 50; ++round) {
      std::vector<std::vector<uint32_t>> out(4), in(4);
      std::vector<std::span<const uint32_t>> send;
      std::vector<std::span<uint32_t>> receive;
      for (uint32_t r = 0; r < 4; ++r) {
        out[r].assign(comm.rank() + 1, 100 * round + 10 * comm.rank() + r);
        in[r].assign(r + 1, 0);
        send.push_back(out[r]);
        receive.push_back(in[r]);
      }
      AllToAll<uint32_t>(comm, send, receive);
      for (uint32_t r = 0; r < 4; ++r) {
        const uint32_t want = r == comm.rank() ? 0 : 100 * round + 10 * r + comm.rank();
        EXPECT_EQ(in[r], std::vector<uint32_t>(r + 1, want));
      }
    }
    EXPECT_EQ(comm.bytes_sent(), 50u * 3 * 4 * (comm.rank() + 1));
  });
}

TEST(ThreadRanks, SumsAndBroadcasts) {
  OnRanks(2, [](Communicator& comm) {
    std::vector<double> values = {1.0 + comm.rank(), 10.0 * comm.rank()};
    comm.ExactSum(values);
    EXPECT_EQ(values, (std::vector<double>{3, 10}));
    double told[1] = {comm.rank() == 0 ? 7.0 : 0.0};
    comm.Broadcast(told);
    EXPECT_EQ(told[0], 7.0);
  });
}

TEST(SingleRank, KeepsItsValues) {
  const auto one = SingleRank();
  std::vector<double> values = {5};
  one->ExactSum(values);
  one->Broadcast(values);
  const std::span<const float> send[1] = {};
  const std::span<float> receive[1] = {};
  AllToAll<float>(*one, send, receive);
  EXPECT_EQ(values[0], 5);
  EXPECT_EQ(one->bytes_sent(), 0u);
}

}  // namespace
}  // namespace cachalot::comm
