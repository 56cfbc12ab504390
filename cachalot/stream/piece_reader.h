// SPDX-License-Identifier: Apache-2.0
// Batches of runs read from files, in pieces: a deep queue, two priorities, failed pieces again,
// spread over mirrors. No thread: the kernel reads, the caller polls. [design/streaming.md]
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/io/read_queue.h"
#include "cachalot/stream/extents.h"

namespace cachalot::stream {

// The same file on one drive or several.
struct FileCopies {
  std::vector<io::DirectFile> copies;  // at least one, all of the same size
};

struct ReaderOptions {
  // Pieces in flight: as many as a disk needs to be busy, and no more, for pieces come back in any
  // order: of what a layer waits for, the first expert is whole only when most of it is read.
  uint32_t depth = 32;
  uint64_t piece_bytes = uint64_t{1} << 20;  // a multiple of the page
  uint32_t attempts = 3;                     // of a piece
  std::function<std::unique_ptr<io::ReadQueue>(uint32_t depth)> new_queue = io::NewReadQueue;
};

struct ReaderStats {
  uint64_t bytes = 0;                // read
  std::vector<uint64_t> copy_bytes;  // of those, from each drive
  uint64_t pieces = 0;               // submitted
  uint64_t retries = 0;
  double busy_seconds = 0;   // with something in flight
  double queue_seconds = 0;  // integral of what is in flight
};

// One thread at a time.
class PieceReader {
 public:
  enum class Urgency : uint8_t { kDemand, kGuess };
  struct Finished {
    uint32_t batch = 0;
    std::optional<Error> error;  // file, offset, reason
  };

  PieceReader(std::vector<FileCopies> files, uint32_t num_batches, const ReaderOptions& options);
  ~PieceReader();  // waits for what is in flight

  // `runs` (kept by the caller, like the memory, until the batch is finished) to `to` + run.at.
  // Pre: the batch is idle. kGuess reads only what the allowance permits, after all demands.
  void Start(uint32_t batch, std::span<const Run> runs, uint8_t* to, Urgency urgency);
  // A guess has become a demand.
  void Promote(uint32_t batch);
  // A guess is not wanted any more: nothing more of it is submitted.
  enum class Dropped : uint8_t {
    kAtOnce,  // the batch is idle; no Finished comes
    kSoon,    // a Finished with kCancelled comes when what is in flight has arrived
    kNot,     // all of it had been submitted: it goes on
  };
  Dropped Drop(uint32_t batch);
  // Bytes that guesses may submit from now on.
  void SetAllowance(uint64_t bytes) { allowance_ = bytes; }
  // A finished batch if there is one. With `wait`, blocks until there is, or nothing is in flight
  // any more. Submits what fits the queue.
  std::optional<Finished> Poll(bool wait);

  const ReaderStats& stats() const { return stats_; }
  // Bytes per second while busy; 0 before anything was read.
  double rate() const {
    return stats_.busy_seconds > 0 ? static_cast<double>(stats_.bytes) / stats_.busy_seconds : 0.0;
  }
  std::span<const FileCopies> files() const { return files_; }

 private:
  using Clock = std::chrono::steady_clock;

  struct Batch {
    std::span<const Run> runs;
    uint8_t* to = nullptr;
    size_t run = 0;       // next to submit from,
    uint64_t offset = 0;  // at this distance from its begin
    uint32_t in_flight = 0;
    bool queued = false;  // has pieces that were not submitted
    bool dropped = false;
    std::optional<Error> error;
  };
  struct Piece {
    uint32_t batch = 0;
    uint32_t file = 0;
    uint32_t copy = 0;
    uint32_t attempt = 0;
    uint64_t offset = 0;
    uint64_t bytes = 0;   // whole pages
    uint64_t needed = 0;  // of those: less at the end of a run
    uint8_t* to = nullptr;
  };

  void Submit();
  bool SubmitNext(uint32_t batch);
  void SubmitPiece(uint32_t index);
  void Take(const io::ReadQueue::Done& done);
  void EndPiece(uint32_t index);
  uint32_t LeastBusyCopy(uint32_t file) const;
  void CountTime();

  std::vector<FileCopies> files_;
  ReaderOptions options_;
  std::vector<Batch> batches_;
  std::deque<uint32_t> demands_, guesses_;  // batches with pieces that were not submitted
  std::deque<Finished> finished_;
  std::vector<Piece> pieces_;  // [depth]
  std::vector<uint32_t> free_pieces_;
  std::vector<uint64_t> bytes_in_flight_;  // by copy number: one drive each
  uint64_t allowance_ = 0;
  uint32_t in_flight_ = 0;
  ReaderStats stats_;
  Clock::time_point last_count_{};
  std::unique_ptr<io::ReadQueue> queue_;  // last: ends first
};

}  // namespace cachalot::stream
