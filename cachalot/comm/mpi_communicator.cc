// SPDX-License-Identifier: Apache-2.0
#include "cachalot/comm/communicator.h"

#ifdef CACHALOT_MPI

#include <mpi.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"

namespace cachalot::comm {
namespace {

// MPI counts in int: longer messages go in several pieces.
constexpr size_t kPieceBytes = size_t{1} << 30;

class Mpi : public Communicator {
 public:
  // MPI's default error handler ends the job, which is what the contract promises.
  Mpi() {
    int rank = 0, size = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    rank_ = static_cast<uint32_t>(rank);
    size_ = static_cast<uint32_t>(size);
  }
  ~Mpi() override { MPI_Finalize(); }

  uint32_t rank() const override { return rank_; }
  uint32_t size() const override { return size_; }

  // Plain sends and receives of all pairs at once: an MPI_Alltoallv would have to have all parts
  // in one array.
  void AllToAll(std::span<const std::span<const std::byte>> send,
                std::span<const std::span<std::byte>> receive) override {
    CACHALOT_CHECK(send.size() == size_ && receive.size() == size_);
    std::vector<MPI_Request> requests;
    for (uint32_t step = 1; step < size_; ++step) {
      // From the neighbor on, each rank begins with another one.
      const uint32_t from = (rank_ + size_ - step) % size_;
      ForPieces(receive[from], [&](std::span<std::byte> piece) {
        MPI_Irecv(piece.data(), Count(piece.size()), MPI_BYTE, static_cast<int>(from), 0,
                  MPI_COMM_WORLD, &requests.emplace_back());
      });
    }
    for (uint32_t step = 1; step < size_; ++step) {
      const uint32_t to = (rank_ + step) % size_;
      ForPieces(send[to], [&](std::span<const std::byte> piece) {
        MPI_Isend(piece.data(), Count(piece.size()), MPI_BYTE, static_cast<int>(to), 0,
                  MPI_COMM_WORLD, &requests.emplace_back());
      });
      bytes_sent_ += send[to].size();
    }
    MPI_Waitall(Count(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
  }

  void ExactSum(std::span<double> values) override {
    MPI_Allreduce(MPI_IN_PLACE, values.data(), Count(values.size()), MPI_DOUBLE, MPI_SUM,
                  MPI_COMM_WORLD);
  }
  void Broadcast(std::span<double> values) override {
    MPI_Bcast(values.data(), Count(values.size()), MPI_DOUBLE, 0, MPI_COMM_WORLD);
  }
  void Barrier() override { MPI_Barrier(MPI_COMM_WORLD); }
  void Abort(int exit_code) override { MPI_Abort(MPI_COMM_WORLD, exit_code); }

 private:
  static int Count(size_t n) { return static_cast<int>(n); }

  template <typename Byte, typename Body>
  static void ForPieces(std::span<Byte> bytes, const Body& body) {
    for (size_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
      body(bytes.subspan(begin, std::min(kPieceBytes, bytes.size() - begin)));
    }
  }

  uint32_t rank_ = 0;
  uint32_t size_ = 1;
};

}  // namespace

Result<std::unique_ptr<Communicator>> StartMpi() {
  int provided = 0;
  // Threads of the pool compute; only the caller talks to MPI.
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  auto mpi = std::make_unique<Mpi>();
  if (!std::has_single_bit(mpi->size())) {
    return Error{
        ErrorCode::kInvalidArgument,
        StrCat(mpi->size(), " ranks: expected a power of two, so that gradients are summed ",
               "by the same tree as on one")};
  }
  return std::unique_ptr<Communicator>(std::move(mpi));
}

}  // namespace cachalot::comm

#else

namespace cachalot::comm {

Result<std::unique_ptr<Communicator>> StartMpi() {
  return Error{ErrorCode::kUnsupported,
               "this cachalot was built without MPI; install libopenmpi-dev, configure and build"};
}

}  // namespace cachalot::comm

#endif
