// SPDX-License-Identifier: Apache-2.0
// Several processes as ranks of one job: the few collective operations that cachalot needs, over
// MPI, of threads, or of a single process. [docs/design/train.md, Ranks]
//
// Every operation is collective: all ranks call the same ones in the same order with the same
// sizes. There are no errors to return: when a rank is lost, or a transfer fails, MPI ends the job
// on all ranks. One caller at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::comm {

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual uint32_t rank() const = 0;
  virtual uint32_t size() const = 0;

  // Bytes from every rank to every other: send[r] arrives in receive[rank()] of rank r, which has
  // the same size. Both have size() entries; those of this rank itself are not looked at. What is
  // sent and what is received must not overlap.
  virtual void AllToAll(std::span<const std::span<const std::byte>> send,
                        std::span<const std::span<std::byte>> receive) = 0;
  // The sum in an unspecified order: for values whose sum is exact, as of counts or of slots that
  // one rank fills and the others leave 0.
  virtual void ExactSum(std::span<double> values) = 0;
  // Rank 0's values on every rank.
  virtual void Broadcast(std::span<double> values) = 0;
  virtual void Barrier() = 0;
  // Ends all ranks' processes with this exit code.
  virtual void Abort(int exit_code) = 0;

  // What this rank has sent by AllToAll so far: the operations whose sizes grow with a model.
  uint64_t bytes_sent() const { return bytes_sent_; }

 protected:
  uint64_t bytes_sent_ = 0;
};

// AllToAll of arrays of T.
template <typename T>
void AllToAll(Communicator& comm, std::span<const std::span<const T>> send,
              std::span<const std::span<T>> receive) {
  std::vector<std::span<const std::byte>> from;
  std::vector<std::span<std::byte>> to;
  for (const std::span<const T> s : send) from.push_back(std::as_bytes(s));
  for (const std::span<T> r : receive) to.push_back(std::as_writable_bytes(r));
  comm.AllToAll(from, to);
}

// One rank: nothing to do.
std::unique_ptr<Communicator> SingleRank();

// `size` ranks of one process, for tests: each is used by a thread of its own, and the last
// destroyed frees what they share. Abort ends the process.
std::vector<std::unique_ptr<Communicator>> ThreadRanks(uint32_t size);

// The ranks that mpirun started; one a process, ended by its destructor. kUnsupported if cachalot
// was built without MPI, kInvalidArgument if the number of ranks is no power of two.
Result<std::unique_ptr<Communicator>> StartMpi();

}  // namespace cachalot::comm
