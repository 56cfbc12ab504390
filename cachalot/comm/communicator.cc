// SPDX-License-Identifier: Apache-2.0
#include "cachalot/comm/communicator.h"

#include <cstdlib>

namespace cachalot::comm {
namespace {

class Single : public Communicator {
 public:
  uint32_t rank() const override { return 0; }
  uint32_t size() const override { return 1; }
  void AllToAll(std::span<const std::span<const std::byte>>,
                std::span<const std::span<std::byte>>) override {}
  void ExactSum(std::span<double>) override {}
  void Broadcast(std::span<double>) override {}
  void Barrier() override {}
  void Abort(int exit_code) override { std::exit(exit_code); }
};

}  // namespace

std::unique_ptr<Communicator> SingleRank() { return std::make_unique<Single>(); }

}  // namespace cachalot::comm
