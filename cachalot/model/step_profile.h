// SPDX-License-Identifier: Apache-2.0
// Where the time of a step goes: an optional clock in the forward pass. A step is one thread that
// opens parallel regions one after the other, so one stopwatch with laps sees all of it.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cachalot::model {

// In the order of a layer; names are those of model.md.
enum class StepOp : uint8_t {
  kEmbed,            // rows of the embedding, widened into the streams
  kHyperConnection,  // mHC: fn u, HcPre, HcPost, hc_head
  kNorm,             // RMSNorms with and without weight
  kRound,            // inputs of products rounded to BF16 or FP8, jobs collected
  kQueryKv,          // products wq_a, wkv, compressors, weights_proj
  kQueryUp,          // products wq_b of attention and indexer
  kRope,             // rotations, Hadamard, FP4 round trip of index queries
  kStoreKv,          // window rows, compressor tails, compressed entries and keys
  kIndexer,          // scores of all keys and top-k
  kAttention,        // over window and entries
  kOutputDown,       // product wo_a
  kOutputUp,         // product wo_b
  kGate,             // product with the router's matrix
  kRouting,          // scores, top-k, grouping by expert
  kExpertWait,       // streamed experts: reads started, and waited for
  kExpertsUp,        // products w1 and w3, routed and shared
  kSwiGlu,           //
  kExpertsDown,      // products w2, routed and shared
  kCombine,          // sum of an expert's rows
  kHead,             // product with the head
  kOther,            // plan, cos and sin, copies of outputs, MTP's own
};
inline constexpr size_t kNumStepOps = static_cast<size_t>(StepOp::kOther) + 1;

// What the goals of a step distinguish: products and attention do the model's work, the rest should
// vanish beside them.
enum class StepOpKind : uint8_t { kProduct, kAttention, kRest };

std::string_view StepOpName(StepOp op);   // "wo_a"
std::string_view StepOpWords(StepOp op);  // what is in it, for a table
StepOpKind KindOf(StepOp op);

// Seconds by operation, summed over steps until cleared. Not thread-safe: one step at a time.
class StepProfile {
 public:
  using Clock = std::chrono::steady_clock;

  // Begins a step: time before it belongs to nobody.
  void Start() { last_ = Clock::now(); }
  // The time since the last lap (or Start) was `op`'s.
  void Lap(StepOp op) {
    const Clock::time_point now = Clock::now();
    seconds_[static_cast<size_t>(op)] += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  void Clear() { seconds_ = {}; }
  void Add(const StepProfile& other) {
    for (size_t i = 0; i < kNumStepOps; ++i) seconds_[i] += other.seconds_[i];
  }

  double seconds(StepOp op) const { return seconds_[static_cast<size_t>(op)]; }
  double total_seconds() const;
  double seconds(StepOpKind kind) const;

 private:
  std::array<double, kNumStepOps> seconds_{};
  Clock::time_point last_;
};

// Costs one predicted branch where nobody measures.
inline void Lap(StepProfile* profile, StepOp op) {
  if (profile != nullptr) profile->Lap(op);
}

}  // namespace cachalot::model
