// SPDX-License-Identifier: Apache-2.0
// Parameters over ranks: gradients on their way to the owners, values on their way back.
// [V4 3.4.1; report.md 6.4; docs/design/train.md, Ranks]
//
// Whole parameters have owners; what is sent is cut into buckets that ignore where a parameter
// ends, so that a step takes few messages. All functions are collective; with one rank they do
// nothing. Thread-safe for distinct sets and communicators.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cachalot/comm/communicator.h"
#include "cachalot/kernels/context.h"
#include "cachalot/train/optimizer_shares.h"
#include "cachalot/train/parameters.h"

namespace cachalot::train {

// A message: long against its latency (0.1 ms on a slow network, 10 ms to send it), short against
// memory when every rank holds one for each other.
inline constexpr size_t kBucketFloats = size_t{1} << 18;

// parts[0] [size] <- the sum of all parts by the tree ((0 + 1) + (2 + 3)) + ...; what the others
// hold after it is unspecified. The number of parts is a power of two. Threads share the elements.
void SumParts(std::span<float* const> parts, size_t size, const kernels::Context& ctx);

// The gradient of each parameter, at its owner, becomes the sum of all ranks' gradients as SumParts
// adds them: an all-to-all of buckets, then a local float32 sum. Elsewhere it is left as it was. Of
// what only its owner computes with, the gradients of all ranks' tokens are there already, one
// after the other; their sum takes the place of the first. For P replicated values evenly owned by
// R ranks, each sends and receives P (R - 1) / R floats, and needs 2 R buckets.
void SumGradientsAtOwners(ParameterSet& set, const RankShares& shares, comm::Communicator& comm,
                          const kernels::Context& ctx);

// The owners' values of what is replicated, on all ranks. The same bytes as above.
void ShareValues(ParameterSet& set, const RankShares& shares, comm::Communicator& comm);

// On rank 0 an array [size] of rank `owner`: `mine` itself, or a copy in `buffer`. Elsewhere empty.
// `mine` matters to the owner alone.
std::span<const float> GatherOnFirstRank(std::span<const float> mine, size_t size, uint32_t owner,
                                         comm::Communicator& comm, AlignedBuffer<float>& buffer);

}  // namespace cachalot::train
