// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/rank_exchange.h"

#include <algorithm>
#include <bit>

#include "cachalot/base/check.h"

namespace cachalot::train {
namespace {

// Of one task of a sum: the parts stay in a core's cache.
constexpr size_t kSumFloats = size_t{1} << 13;

// Arrays one after the other, read and written as one.
class Concatenation {
 public:
  void Add(std::span<float> part) {
    parts_.push_back(part);
    size_ += part.size();
  }
  size_t size() const { return size_; }
  // What of [begin, begin + most) exists.
  size_t Count(size_t begin, size_t most) const {
    return std::min(most, size_ - std::min(begin, size_));
  }
  void Read(size_t begin, std::span<float> to) const {
    ForParts(begin, to.size(), [&](std::span<float> part, size_t at) {
      std::ranges::copy(part, to.begin() + static_cast<long>(at));
    });
  }
  void Write(size_t begin, std::span<const float> from) {
    ForParts(begin, from.size(), [&](std::span<float> part, size_t at) {
      std::ranges::copy(from.subspan(at, part.size()), part.begin());
    });
  }

 private:
  // Calls body(piece of a part, where it begins in [begin, begin + count)).
  template <typename Body>
  void ForParts(size_t begin, size_t count, const Body& body) const {
    size_t first = 0;  // of the part
    for (const std::span<float> part : parts_) {
      const size_t from = std::max(begin, first);
      const size_t to = std::min(begin + count, first + part.size());
      if (from < to) body(part.subspan(from - first, to - from), from - begin);
      first += part.size();
    }
  }

  std::vector<std::span<float>> parts_;
  size_t size_ = 0;
};

// What each rank owns of what is replicated, as one array a rank; `field` picks values or
// gradients.
std::vector<Concatenation> ByOwner(ParameterSet& set, const RankShares& shares,
                                   AlignedBuffer<float> Parameter::*field, uint32_t ranks) {
  CACHALOT_CHECK(shares.owners.size() == set.parameters.size());
  std::vector<Concatenation> by_owner(ranks);
  for (size_t i = 0; i < shares.owners.size(); ++i) {
    if (shares.replicated[i] == 0) continue;
    by_owner[shares.owners[i]].Add((set.parameters[i].*field).span());
  }
  return by_owner;
}

size_t Longest(std::span<const Concatenation> arrays) {
  return std::ranges::max_element(arrays, {}, &Concatenation::size)->size();
}

// Gradients of all ranks' tokens, which only this rank computed: their sums.
void SumSources(ParameterSet& set, const RankShares& shares, comm::Communicator& comm,
                const kernels::Context& ctx) {
  for (size_t i = 0; i < shares.owners.size(); ++i) {
    if (shares.replicated[i] != 0 || shares.owners[i] != comm.rank()) continue;
    Parameter& p = set.parameters[i];
    std::vector<float*> parts;
    for (uint32_t r = 0; r < comm.size(); ++r) parts.push_back(p.grad.data() + r * p.size());
    SumParts(parts, p.size(), ctx);
  }
}

// One bucket for each rank.
class Buckets {
 public:
  explicit Buckets(uint32_t ranks) {
    for (uint32_t r = 0; r < ranks; ++r) buffers_.emplace_back(kBucketFloats);
  }
  std::span<float> Take(uint32_t rank, size_t count) { return buffers_[rank].span().first(count); }
  float* data(uint32_t rank) { return buffers_[rank].data(); }

 private:
  std::vector<AlignedBuffer<float>> buffers_;
};

}  // namespace

void SumParts(std::span<float* const> parts, size_t size, const kernels::Context& ctx) {
  CACHALOT_CHECK(std::has_single_bit(parts.size()));
  ctx.pool->ParallelFor((size + kSumFloats - 1) / kSumFloats, [&](size_t task, size_t) {
    const size_t begin = task * kSumFloats;
    const size_t end = std::min(size, begin + kSumFloats);
    for (size_t width = 1; width < parts.size(); width *= 2) {
      for (size_t p = 0; p < parts.size(); p += 2 * width) {
        float* left = parts[p];
        const float* right = parts[p + width];
        for (size_t i = begin; i < end; ++i) left[i] += right[i];
      }
    }
  });
}

void SumGradientsAtOwners(ParameterSet& set, const RankShares& shares, comm::Communicator& comm,
                          const kernels::Context& ctx) {
  if (comm.size() == 1) return;
  SumSources(set, shares, comm, ctx);
  const uint32_t ranks = comm.size(), me = comm.rank();
  std::vector<Concatenation> gradients = ByOwner(set, shares, &Parameter::grad, ranks);
  Buckets out(ranks), in(ranks);
  std::vector<float*> parts;
  for (uint32_t r = 0; r < ranks; ++r) parts.push_back(in.data(r));
  const size_t longest = Longest(gradients);
  for (size_t begin = 0; begin < longest; begin += kBucketFloats) {
    const size_t mine = gradients[me].Count(begin, kBucketFloats);
    std::vector<std::span<const float>> send(ranks);
    std::vector<std::span<float>> receive(ranks);
    for (uint32_t r = 0; r < ranks; ++r) {
      receive[r] = in.Take(r, mine);
      const std::span<float> theirs =
          r == me ? receive[r] : out.Take(r, gradients[r].Count(begin, kBucketFloats));
      gradients[r].Read(begin, theirs);
      send[r] = theirs;
    }
    comm::AllToAll<float>(comm, send, receive);
    SumParts(parts, mine, ctx);
    gradients[me].Write(begin, receive[0]);
  }
}

void ShareValues(ParameterSet& set, const RankShares& shares, comm::Communicator& comm) {
  if (comm.size() == 1) return;
  const uint32_t ranks = comm.size(), me = comm.rank();
  std::vector<Concatenation> values = ByOwner(set, shares, &Parameter::value, ranks);
  Buckets buckets(ranks);
  const size_t longest = Longest(values);
  for (size_t begin = 0; begin < longest; begin += kBucketFloats) {
    const std::span<float> mine = buckets.Take(me, values[me].Count(begin, kBucketFloats));
    values[me].Read(begin, mine);
    const std::vector<std::span<const float>> send(ranks, mine);
    std::vector<std::span<float>> receive(ranks);
    for (uint32_t r = 0; r < ranks; ++r) {
      if (r != me) receive[r] = buckets.Take(r, values[r].Count(begin, kBucketFloats));
    }
    comm::AllToAll<float>(comm, send, receive);
    for (uint32_t r = 0; r < ranks; ++r) values[r].Write(begin, receive[r]);
  }
}

std::span<const float> GatherOnFirstRank(std::span<const float> mine, size_t size, uint32_t owner,
                                         comm::Communicator& comm, AlignedBuffer<float>& buffer) {
  if (owner == 0) return comm.rank() == 0 ? mine : std::span<const float>();
  std::vector<std::span<const float>> send(comm.size());
  std::vector<std::span<float>> receive(comm.size());
  if (comm.rank() == owner) send[0] = mine;
  if (comm.rank() == 0) {
    if (buffer.size() < size) buffer = AlignedBuffer<float>(size);
    receive[owner] = buffer.span().first(size);
  }
  comm::AllToAll<float>(comm, send, receive);
  return receive[owner];
}

}  // namespace cachalot::train
