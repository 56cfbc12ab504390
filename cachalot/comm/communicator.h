// SPDX-License-Identifier: Apache-2.0
// Several processes as ranks of one job: the few collective operations that cachalot needs, over
// MPI or of a single process. [docs/design/train.md, Ranks]
//
// Every operation is collective: all ranks call the same ones in the same order with the same
// sizes. There are no errors to return: when a rank is lost, or a transfer fails, MPI ends the job
// on all ranks. One caller at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "cachalot/base/error.h"

namespace cachalot::comm {

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual uint32_t rank() const = 0;
  virtual uint32_t size() const = 0;

  // Each element becomes the sum over ranks by the tree ((0 + 1) + (2 + 3)) + ...: the same bits on
  // all ranks, whatever the transport. size() is a power of two.
  virtual void TreeSum(std::span<float> values) = 0;
  // The sum in an unspecified order: for values whose sum is exact, as of counts or of slots that
  // one rank fills and the others leave 0.
  virtual void ExactSum(std::span<double> values) = 0;
  // Rank 0's values on every rank.
  virtual void Broadcast(std::span<double> values) = 0;
  // Those of rank `from`.
  virtual void Broadcast(std::span<float> values, uint32_t from) = 0;
  virtual void Barrier() = 0;
  // Ends all ranks' processes with this exit code.
  virtual void Abort(int exit_code) = 0;
};

// One rank: nothing to do.
std::unique_ptr<Communicator> SingleRank();

// The ranks that mpirun started; one a process, ended by its destructor. kUnsupported if cachalot
// was built without MPI, kInvalidArgument if the number of ranks is no power of two.
Result<std::unique_ptr<Communicator>> StartMpi();

}  // namespace cachalot::comm
