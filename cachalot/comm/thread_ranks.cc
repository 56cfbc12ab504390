// SPDX-License-Identifier: Apache-2.0
// Ranks that are threads of one process: each operation is a barrier, reads of what the others have
// put in place, and a barrier.
#include <algorithm>
#include <barrier>
#include <cstdlib>

#include "cachalot/base/check.h"
#include "cachalot/comm/communicator.h"

namespace cachalot::comm {
namespace {

struct Shared {
  explicit Shared(uint32_t size) : barrier(size), sends(size), values(size) {}
  // Between two barriers, entry r is what rank r gives; only rank r writes it, before the first.
  std::barrier<> barrier;
  std::vector<std::span<const std::span<const std::byte>>> sends;
  std::vector<std::vector<double>> values;
};

class ThreadRank : public Communicator {
 public:
  ThreadRank(uint32_t rank, std::shared_ptr<Shared> shared)
      : rank_(rank), shared_(std::move(shared)) {}

  uint32_t rank() const override { return rank_; }
  uint32_t size() const override { return static_cast<uint32_t>(shared_->sends.size()); }

  void AllToAll(std::span<const std::span<const std::byte>> send,
                std::span<const std::span<std::byte>> receive) override {
    CACHALOT_CHECK(send.size() == size() && receive.size() == size());
    shared_->sends[rank_] = send;
    Barrier();
    for (uint32_t r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      const std::span<const std::byte> from = shared_->sends[r][rank_];
      CACHALOT_CHECK(from.size() == receive[r].size());
      std::ranges::copy(from, receive[r].begin());
      bytes_sent_ += send[r].size();
    }
    Barrier();
  }
  void ExactSum(std::span<double> values) override {
    Exchange(values, [&] {
      for (uint32_t r = 0; r < size(); ++r) {
        if (r == rank_) continue;
        for (size_t i = 0; i < values.size(); ++i) values[i] += shared_->values[r][i];
      }
    });
  }
  void Broadcast(std::span<double> values) override {
    Exchange(values, [&] { std::ranges::copy(shared_->values[0], values.begin()); });
  }
  void Barrier() override { shared_->barrier.arrive_and_wait(); }
  void Abort(int exit_code) override { std::exit(exit_code); }

 private:
  template <typename Read>
  void Exchange(std::span<const double> values, const Read& read) {
    shared_->values[rank_].assign(values.begin(), values.end());
    Barrier();
    for (const std::vector<double>& other : shared_->values) {
      CACHALOT_CHECK(other.size() == values.size());
    }
    read();
    Barrier();
  }

  uint32_t rank_;
  std::shared_ptr<Shared> shared_;  // by all ranks: none is sure to be the last
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> ThreadRanks(uint32_t size) {
  const auto shared = std::make_shared<Shared>(size);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (uint32_t r = 0; r < size; ++r) ranks.push_back(std::make_unique<ThreadRank>(r, shared));
  return ranks;
}

}  // namespace cachalot::comm
