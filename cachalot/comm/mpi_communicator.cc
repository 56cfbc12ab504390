// SPDX-License-Identifier: Apache-2.0
#include "cachalot/comm/communicator.h"

#ifdef CACHALOT_MPI

#include <mpi.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "cachalot/base/strings.h"

namespace cachalot::comm {
namespace {

// Floats of one exchange: MPI counts in int, and a piece of this size stays in cache while it is
// added.
constexpr size_t kPiece = size_t{1} << 18;

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

  // Recursive doubling: after round k a rank holds the sum of its aligned group of 2^(k+1) ranks.
  // Both partners add the same two numbers, and a + b == b + a to the bit.
  void TreeSum(std::span<float> values) override {
    for (size_t begin = 0; begin < values.size(); begin += kPiece) {
      const auto piece = values.subspan(begin, std::min(kPiece, values.size() - begin));
      for (uint32_t bit = 1; bit < size_; bit *= 2) AddOfPartner(rank_ ^ bit, piece);
    }
  }

  void ExactSum(std::span<double> values) override {
    MPI_Allreduce(MPI_IN_PLACE, values.data(), Count(values.size()), MPI_DOUBLE, MPI_SUM,
                  MPI_COMM_WORLD);
  }
  void Broadcast(std::span<double> values) override {
    MPI_Bcast(values.data(), Count(values.size()), MPI_DOUBLE, 0, MPI_COMM_WORLD);
  }
  void Broadcast(std::span<float> values, uint32_t from) override {
    for (size_t begin = 0; begin < values.size(); begin += kPiece) {
      const auto piece = values.subspan(begin, std::min(kPiece, values.size() - begin));
      MPI_Bcast(piece.data(), Count(piece.size()), MPI_FLOAT, static_cast<int>(from),
                MPI_COMM_WORLD);
    }
  }
  void Barrier() override { MPI_Barrier(MPI_COMM_WORLD); }
  void Abort(int exit_code) override { MPI_Abort(MPI_COMM_WORLD, exit_code); }

 private:
  static int Count(size_t n) { return static_cast<int>(n); }

  void AddOfPartner(uint32_t partner, std::span<float> values) {
    received_.resize(values.size());
    const auto other = static_cast<int>(partner);
    MPI_Sendrecv(values.data(), Count(values.size()), MPI_FLOAT, other, 0, received_.data(),
                 Count(values.size()), MPI_FLOAT, other, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    for (size_t i = 0; i < values.size(); ++i) values[i] += received_[i];
  }

  uint32_t rank_ = 0;
  uint32_t size_ = 1;
  std::vector<float> received_;
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
