// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/packed_reader.h"

#include <numeric>

#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"

namespace cachalot::train {

void PackedReader::Prepare(uint32_t sequence_length) {
  rows_ = PackBestFit(
      dataset_->num_samples(), [&](uint64_t s) { return dataset_->SampleLength(s); },
      sequence_length);
  Shuffle();
}

// Fisher-Yates with draws that are functions of (seed, epoch, index).
void PackedReader::Shuffle() {
  order_.resize(rows_.num_rows());
  std::iota(order_.begin(), order_.end(), uint64_t{0});
  const uint64_t key = CounterRandom(seed_, position_.epoch, 0x6f72646572);
  for (uint64_t i = order_.size(); i > 1; --i) {
    std::swap(order_[i - 1], order_[CounterRandom(key, i, 0) % i]);
  }
}

void PackedReader::Next(uint32_t sequence_length, PackedSequence& out) {
  if (sequence_length != position_.sequence_length) {
    const bool fresh = position_.sequence_length == 0;
    position_ = {fresh ? position_.epoch : position_.epoch + 1, 0, sequence_length};
    Prepare(sequence_length);
  } else if (position_.row == order_.size()) {
    ++position_.epoch;
    position_.row = 0;
    Shuffle();
  }
  out.tokens.clear();
  out.starts.clear();
  out.next.clear();
  out.targets.clear();
  out.mtp_targets.clear();
  for (const Piece& piece : rows_.row(order_[position_.row])) {
    sample_.ids.clear();
    sample_.is_target.clear();
    dataset_->Read(piece.sample, piece.begin, uint64_t{piece.length} + 2, sample_);
    const auto at = [&](size_t i) { return i < sample_.ids.size() ? sample_.ids[i] : kNoToken; };
    const auto target = [&](size_t i) {
      return i < sample_.ids.size() && sample_.is_target[i] != 0 ? sample_.ids[i] : kNoToken;
    };
    out.starts.push_back(static_cast<uint32_t>(out.tokens.size()));
    for (size_t i = 0; i < piece.length; ++i) {
      out.tokens.push_back(sample_.ids[i]);
      out.next.push_back(at(i + 1));
      out.targets.push_back(target(i + 1));
      out.mtp_targets.push_back(target(i + 2));
    }
  }
  ++position_.row;
}

Status PackedReader::Seek(const DataPosition& position) {
  position_ = position;
  if (position.sequence_length == 0) return {};
  if (position.sequence_length >= 2) Prepare(position.sequence_length);
  if (position.sequence_length < 2 || position.row > order_.size()) {
    return Error{ErrorCode::kDataCorruption,
                 StrCat("the checkpoint stands at row ", position.row, " of sequences of ",
                        position.sequence_length, " tokens, the data has ", order_.size(),
                        " such rows; train with the data it began with")};
  }
  return {};
}

uint64_t PackedReader::packed_tokens() const {
  uint64_t tokens = 0;
  for (const Piece& piece : rows_.pieces) tokens += piece.length;
  return tokens;
}

}  // namespace cachalot::train
