// SPDX-License-Identifier: Apache-2.0
#include "cachalot/diskcache/reading.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <tuple>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"

namespace cachalot::diskcache {
namespace {

// One read of this size costs an SSD no more time than its bytes do.
constexpr uint64_t kGroupBytes = uint64_t{1} << 20;
// Eight of them keep the disks we met busy; more memory is more page faults.
constexpr size_t kBuffersBytes = size_t{8} << 20;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMinDepth = 2;
constexpr size_t kMaxDepth = 32;

uint64_t Down(uint64_t offset) { return offset / kDirectAlignment * kDirectAlignment; }
uint64_t Up(uint64_t offset) { return Down(offset + kDirectAlignment - 1); }

}  // namespace

void Reading::FreeMemory::operator()(uint8_t* p) const { std::free(p); }

Reading::Reading(Store& store, std::vector<FoundRecord> records, std::vector<uint32_t> tokens,
                 Store::Sink sink)
    : store_(store),
      records_(std::move(records)),
      tokens_(std::move(tokens)),
      sink_(std::move(sink)) {}

Reading::~Reading() = default;

Status Reading::Prepare() {
  order_.resize(records_.size());
  std::iota(order_.begin(), order_.end(), size_t{0});
  std::ranges::sort(
      order_, {}, [this](size_t i) { return std::tuple(records_[i].segment, records_[i].offset); });
  uint32_t segment = 0;
  for (size_t i = 0; i < order_.size(); ++i) {
    const FoundRecord& record = records_[order_[i]];
    const uint64_t end = record.offset + record.bytes;
    if (!groups_.empty() && record.segment == segment) {
      Group& last = groups_.back();
      // A gap of less than a page is on a page that is read anyway.
      if (record.offset < last.end + kDirectAlignment && end - last.begin <= kGroupBytes) {
        ++last.count;
        last.end = std::max(last.end, end);
        continue;
      }
    }
    auto file = store_.FileOf(record.segment);
    if (file == nullptr) {
      const Error error{ErrorCode::kNotFound, StrCat("segment ", record.segment, " is gone")};
      store_.Failed(record.key, error);
      return error;
    }
    segment = record.segment;
    groups_.push_back({.first = i, .count = 1, .begin = record.offset, .end = end});
    files_.push_back(std::move(file));
  }
  for (const Group& group : groups_) {
    buffer_bytes_ = std::max(buffer_bytes_, static_cast<size_t>(Up(group.end) - Down(group.begin)));
  }
  if (groups_.empty()) return {};
  const size_t depth =
      std::min(groups_.size(), std::clamp(kBuffersBytes / buffer_bytes_, kMinDepth, kMaxDepth));
  const size_t bytes = (depth * buffer_bytes_ + kHugePage - 1) / kHugePage * kHugePage;
  memory_.reset(static_cast<uint8_t*>(std::aligned_alloc(kHugePage, bytes)));
  if (memory_ == nullptr) {
    return Error{ErrorCode::kResourceExhausted,
                 StrCat("no memory for reads of ", depth * buffer_bytes_, " bytes")};
  }
  madvise(memory_.get(), bytes, MADV_HUGEPAGE);  // a wish
  for (size_t i = depth; i-- > 0;) free_buffers_.push_back(i);
  group_of_buffer_.resize(depth);
  CACHALOT_TRY(queue_, store_.storage_->NewReadQueue(static_cast<uint32_t>(depth)));
  return SubmitSome();
}

std::span<uint8_t> Reading::Buffer(size_t i) {
  return {memory_.get() + i * buffer_bytes_, buffer_bytes_};
}

Status Reading::SubmitSome() {
  while (!free_buffers_.empty() && next_group_ < groups_.size()) {
    const size_t buffer = free_buffers_.back();
    const Group& group = groups_[next_group_];
    const uint64_t begin = Down(group.begin);
    CACHALOT_RETURN_IF_ERROR(queue_->Submit(*files_[next_group_], begin,
                                            Buffer(buffer).first(Up(group.end) - begin), buffer));
    group_of_buffer_[buffer] = next_group_++;
    free_buffers_.pop_back();
  }
  return {};
}

Result<bool> Reading::Poll(bool wait) {
  while (finished_groups_ < groups_.size()) {
    CACHALOT_TRY(const ReadQueue::Done done, queue_->Next(wait));
    if (done.tag == ReadQueue::kNothing) return false;
    CACHALOT_RETURN_IF_ERROR(Take(done));
    free_buffers_.push_back(done.tag);
    ++finished_groups_;
    CACHALOT_RETURN_IF_ERROR(SubmitSome());
  }
  return true;
}

Status Reading::Take(const ReadQueue::Done& done) {
  const size_t buffer = done.tag;
  const Group& group = groups_[group_of_buffer_[buffer]];
  const uint64_t begin = Down(group.begin);
  for (size_t i = group.first; i < group.first + group.count; ++i) {
    const FoundRecord& record = records_[order_[i]];
    Status status;
    if (done.bytes < 0) {
      status = Error{ErrorCode::kIo, std::strerror(static_cast<int>(-done.bytes))};
    } else if (record.offset - begin + record.bytes > static_cast<uint64_t>(done.bytes)) {
      status = Error{ErrorCode::kDataCorruption, "the segment ends before the record does"};
    } else {
      status = Deliver(order_[i], Buffer(buffer).subspan(record.offset - begin, record.bytes));
    }
    if (status.ok()) continue;
    store_.Failed(record.key, status.error());
    return status;
  }
  const std::lock_guard lock(store_.mutex_);
  store_.stats_.read_bytes += static_cast<uint64_t>(std::max<int64_t>(done.bytes, 0));
  return {};
}

Status Reading::Deliver(size_t index, std::span<const uint8_t> bytes) {
  const FoundRecord& record = records_[index];
  const RecordName name{.kind = record.kind,
                        .parent = record.parent,
                        .position = record.position,
                        .ids = IdsOf(record)};
  CACHALOT_TRY(const auto payload, DecodeRecord(bytes, record.key, name));
  if (!sink_(index, payload)) {
    return Error{ErrorCode::kDataCorruption, StrCat("payload of ", payload.size(), " bytes")};
  }
  return {};
}

// Of a block its 128 tokens, of a state those after the last complete block.
std::span<const uint32_t> Reading::IdsOf(const FoundRecord& record) const {
  const size_t end = record.position;
  const size_t count = record.kind == RecordKind::kBlock ? kBlockTokens : end % kBlockTokens;
  if (end > tokens_.size() || count > end) return {};
  return std::span(tokens_).subspan(end - count, count);
}

}  // namespace cachalot::diskcache
