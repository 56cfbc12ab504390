// SPDX-License-Identifier: Apache-2.0
#include "cachalot/stream/piece_reader.h"

#include <algorithm>
#include <cstring>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"

namespace cachalot::stream {
namespace {

Error PieceError(const io::DirectFile& file, uint64_t offset, uint64_t needed, int64_t got,
                 uint32_t attempts) {
  const std::string reason =
      got < 0 ? std::string(std::strerror(static_cast<int>(-got)))
              : StrCat("only ", got, " of ", needed, " bytes are there; was the file cut short?");
  return {ErrorCode::kIo, StrCat(file.path(), ": reading weights at byte ", offset, " failed ",
                                 attempts, " times: ", reason,
                                 "; check the disk (dmesg), restore the file, or give a second ",
                                 "copy with --weights-mirror")};
}

}  // namespace

PieceReader::PieceReader(std::vector<FileCopies> files, uint32_t num_batches,
                         const ReaderOptions& options)
    : files_(std::move(files)), options_(options), batches_(num_batches), pieces_(options.depth) {
  CACHALOT_CHECK(options.depth >= 1 && options.piece_bytes % io::kDirectAlignment == 0);
  size_t copies = 1;
  for (const FileCopies& file : files_) copies = std::max(copies, file.copies.size());
  bytes_in_flight_.resize(copies);
  stats_.copy_bytes.resize(copies);
  for (uint32_t i = options.depth; i-- > 0;) free_pieces_.push_back(i);
  queue_ = options.new_queue(options.depth);
}

PieceReader::~PieceReader() = default;

void PieceReader::Start(uint32_t batch, std::span<const Run> runs, uint8_t* to, Urgency urgency) {
  Batch& b = batches_[batch];
  CACHALOT_CHECK(!b.queued && b.in_flight == 0 && !runs.empty());
  b = {.runs = runs, .to = to, .queued = true};
  (urgency == Urgency::kDemand ? demands_ : guesses_).push_back(batch);
}

void PieceReader::Promote(uint32_t batch) {
  if (std::erase(guesses_, batch) > 0) demands_.push_back(batch);
}

PieceReader::Dropped PieceReader::Drop(uint32_t batch) {
  Batch& b = batches_[batch];
  if (std::erase(guesses_, batch) == 0) return Dropped::kNot;
  b.queued = false;
  b.dropped = true;
  return b.in_flight == 0 ? Dropped::kAtOnce : Dropped::kSoon;
}

std::optional<PieceReader::Finished> PieceReader::Poll(bool wait) {
  while (true) {
    Submit();
    // Everything that has arrived, so that the queue is refilled as one.
    while (in_flight_ > 0) {
      const auto done = queue_->Next(/*wait=*/false);
      CACHALOT_CHECK(done.ok());  // the kernel takes no more: nothing could be read any more
      if (done->tag == io::ReadQueue::kNothing) break;
      Take(*done);
    }
    Submit();
    if (!finished_.empty()) {
      Finished first = std::move(finished_.front());
      finished_.pop_front();
      return first;
    }
    if (!wait || in_flight_ == 0) return std::nullopt;
    const auto done = queue_->Next(/*wait=*/true);
    CACHALOT_CHECK(done.ok());
    Take(*done);
  }
}

void PieceReader::Submit() {
  while (!free_pieces_.empty() && !demands_.empty()) {
    if (!SubmitNext(demands_.front())) demands_.pop_front();
  }
  while (!free_pieces_.empty() && demands_.empty() && !guesses_.empty() && allowance_ > 0) {
    allowance_ -= std::min(allowance_, options_.piece_bytes);
    if (!SubmitNext(guesses_.front())) guesses_.pop_front();
  }
}

// The next piece of the batch; false if it was its last. Pre: a piece is free.
bool PieceReader::SubmitNext(uint32_t batch) {
  Batch& b = batches_[batch];
  const Run& run = b.runs[b.run];
  const uint64_t bytes = std::min(options_.piece_bytes, run.bytes() - b.offset);
  const uint32_t index = free_pieces_.back();
  free_pieces_.pop_back();
  pieces_[index] = {.batch = batch,
                    .file = run.file,
                    .copy = LeastBusyCopy(run.file),
                    .attempt = 1,
                    .offset = run.begin + b.offset,
                    .bytes = bytes,
                    .needed = std::min(bytes, run.end - run.begin - b.offset),
                    .to = b.to + run.at + b.offset};
  ++b.in_flight;
  b.offset += bytes;
  if (b.offset == run.bytes()) {
    ++b.run;
    b.offset = 0;
  }
  b.queued = b.run < b.runs.size();
  const bool more = b.queued;
  SubmitPiece(index);
  return more;
}

void PieceReader::SubmitPiece(uint32_t index) {
  const Piece& piece = pieces_[index];
  const int fd = files_[piece.file].copies[piece.copy].fd();
  CountTime();
  ++stats_.pieces;
  ++in_flight_;
  bytes_in_flight_[piece.copy] += piece.bytes;
  const Status status = queue_->Submit(fd, piece.offset, {piece.to, piece.bytes}, index);
  CACHALOT_CHECK(status.ok());
}

void PieceReader::Take(const io::ReadQueue::Done& done) {
  const auto index = static_cast<uint32_t>(done.tag);
  Piece& piece = pieces_[index];
  CountTime();
  --in_flight_;
  bytes_in_flight_[piece.copy] -= piece.bytes;
  if (done.bytes >= static_cast<int64_t>(piece.needed)) {
    stats_.bytes += static_cast<uint64_t>(done.bytes);
    stats_.copy_bytes[piece.copy] += static_cast<uint64_t>(done.bytes);
    return EndPiece(index);
  }
  if (piece.attempt < options_.attempts) {
    ++piece.attempt;
    ++stats_.retries;
    piece.copy = (piece.copy + 1) % static_cast<uint32_t>(files_[piece.file].copies.size());
    return SubmitPiece(index);
  }
  batches_[piece.batch].error = PieceError(files_[piece.file].copies[piece.copy], piece.offset,
                                           piece.needed, done.bytes, options_.attempts);
  EndPiece(index);
}

void PieceReader::EndPiece(uint32_t index) {
  const uint32_t batch = pieces_[index].batch;
  free_pieces_.push_back(index);
  Batch& b = batches_[batch];
  if (--b.in_flight > 0 || b.queued) return;
  if (b.dropped && !b.error) {
    b.error = Error{ErrorCode::kCancelled, "not wanted any more"};
  }
  finished_.push_back({.batch = batch, .error = std::move(b.error)});
  b.error.reset();
}

uint32_t PieceReader::LeastBusyCopy(uint32_t file) const {
  uint32_t best = 0;
  for (uint32_t c = 1; c < files_[file].copies.size(); ++c) {
    if (bytes_in_flight_[c] < bytes_in_flight_[best]) best = c;
  }
  return best;
}

void PieceReader::CountTime() {
  const Clock::time_point now = Clock::now();
  if (in_flight_ > 0) {
    const double seconds = std::chrono::duration<double>(now - last_count_).count();
    stats_.busy_seconds += seconds;
    stats_.queue_seconds += seconds * in_flight_;
  }
  last_count_ = now;
}

}  // namespace cachalot::stream
