// SPDX-License-Identifier: Apache-2.0
// Training sequences from a dataset, shuffled, resumable at the exact one.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cachalot/train/dataset.h"
#include "cachalot/train/packing.h"

namespace cachalot::train {

inline constexpr uint32_t kNoToken = ~uint32_t{0};

// One sequence: pieces of samples one after the other. Every piece is a sequence of its own to the
// model: positions count from its start, attention stays inside it, and so do the blocks of the
// compressors, which are counted from its start as well. So a piece may start anywhere.
struct PackedSequence {
  std::vector<uint32_t> tokens;  // 2 to the sequence length
  std::vector<uint32_t> starts;  // of each piece; starts[0] = 0
  std::vector<uint32_t> next;  // the token after each, in its sample; kNoToken at the sample's end
  std::vector<uint32_t> targets;      // `next` where it counts in the loss, else kNoToken
  std::vector<uint32_t> mtp_targets;  // the same two tokens ahead
};

// Where a reader is: all of its state.
struct DataPosition {
  uint64_t epoch = 0;
  uint64_t row = 0;              // next one, in the epoch's order
  uint32_t sequence_length = 0;  // 0: nothing read yet

  friend bool operator==(const DataPosition&, const DataPosition&) = default;
};

class PackedReader {
 public:
  PackedReader(std::shared_ptr<const Dataset> dataset, uint64_t seed)
      : dataset_(std::move(dataset)), seed_(seed) {}

  // Overwrites `out` with the next sequence. Each epoch visits every row once, in an order that is
  // a function of (seed, epoch). A new sequence length packs anew and begins the next epoch. Costs
  // the tokens; at a new epoch or length the number of samples.
  void Next(uint32_t sequence_length, PackedSequence& out);

  const std::shared_ptr<const Dataset>& dataset() const { return dataset_; }
  const DataPosition& position() const { return position_; }
  // The reader then gives what the one that had this position would have given. kDataCorruption if
  // the dataset cannot have this position.
  Status Seek(const DataPosition& position);

  // Of the current sequence length: rows an epoch has, and tokens in them.
  uint64_t num_rows() const { return rows_.num_rows(); }
  uint64_t packed_tokens() const;

 private:
  void Prepare(uint32_t sequence_length);
  void Shuffle();

  std::shared_ptr<const Dataset> dataset_;
  uint64_t seed_;
  DataPosition position_;
  PackedRows rows_;
  std::vector<uint64_t> order_;
  Sample sample_;
};

}  // namespace cachalot::train
