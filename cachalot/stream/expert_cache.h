// SPDX-License-Identifier: Apache-2.0
// Fixed slots of memory for routed experts, filled from the checkpoint's files.
// [design/streaming.md]
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/model/expert_source.h"
#include "cachalot/model/weights.h"
#include "cachalot/stream/extents.h"
#include "cachalot/stream/page_memory.h"
#include "cachalot/stream/piece_reader.h"
#include "cachalot/stream/policy.h"
#include "cachalot/stream/trace.h"

namespace cachalot::stream {

// An expert on disk: reads that fill a slot, and where its tensors lie in it.
struct ExpertPlace {
  std::vector<Run> runs;
  std::array<uint64_t, 6> tensors{};  // w1, its scales, w3, its scales, w2, its scales
  model::ExpertWeights format;        // kinds and shapes; data is set per slot
};

struct ExpertCacheOptions {
  uint64_t num_slots = 0;  // at least kMinSlots
  PolicyKind policy = PolicyKind::kLfu;
  double half_life = PolicyOptions{}.half_life;
  bool prefetch = true;
  bool record_trace = false;
  uint32_t prefill_chunk = 0;  // what the plan made room for
  ReaderOptions reader;
};

// One to compute from while the next is read.
inline constexpr uint64_t kMinSlots = 2;

class ExpertCache final : public model::ExpertSource {
 public:
  // `places` [num_layers * num_experts]; files as their runs number them.
  static Result<std::unique_ptr<ExpertCache>> Create(std::vector<ExpertPlace> places,
                                                     uint32_t num_experts,
                                                     std::vector<FileCopies> files,
                                                     const ExpertCacheOptions& options);

  void Begin(uint32_t layer, size_t num_tokens,
             std::span<const model::WantedExpert> wanted) override;
  std::span<const model::ReadyExpert> Next(bool wait) override;
  void Prefetch(uint32_t layer, std::span<const model::WantedExpert> likely,
                double seconds) override;
  bool wants_guesses() const override { return prefetch_; }
  uint32_t prefill_chunk() const override { return prefill_chunk_; }
  Error failure() const override;
  model::ExpertStats stats() const override;

  // How often each expert was chosen, by layer, since the start: what an expert profile keeps.
  // [num_layers * num_experts], tokens.
  std::span<const uint64_t> uses() const { return uses_; }
  uint32_t num_experts() const { return num_experts_; }
  uint32_t num_layers() const { return static_cast<uint32_t>(places_.size() / num_experts_); }
  // Takes uses of an earlier run as experience, and reads the most used experts into free slots.
  Status Learn(std::span<const uint64_t> uses);

  ExpertTrace& trace() { return trace_; }
  PolicyOptions policy_options() const { return policy_options_; }

 private:
  enum class SlotState : uint8_t { kFree, kReading, kReady, kDropped };
  struct Slot {
    SlotState state = SlotState::kFree;
    bool wanted = false;           // by the current step, and not returned yet
    bool leased = false;           // returned by the last Next
    bool guessed = false;          // read ahead, not asked for yet
    uint32_t held_for = kNoLayer;  // likely to be asked for by this layer
    ExpertKey key = 0;
    model::ExpertWeights weights;
  };
  static constexpr uint32_t kNoSlot = UINT32_MAX;
  static constexpr uint32_t kNoLayer = UINT32_MAX;

  ExpertCache(std::vector<ExpertPlace> places, uint32_t num_experts, std::vector<FileCopies> files,
              const ExpertCacheOptions& options, uint64_t slot_bytes, PageMemory memory);

  void ForgetGuesses(uint32_t layer);
  void WantOne(ExpertKey key, model::ExpertStats::Layer& layer);
  void ReturnLeases();
  void StartMissing();
  bool TakeFinished(bool wait);
  uint32_t TakeSlot(bool for_guess);
  uint32_t ChooseVictim(bool spare_held) const;
  void StartRead(uint32_t slot, ExpertKey key, PieceReader::Urgency urgency);
  void Evict(uint32_t slot);
  size_t MostPerGroup() const;

  std::vector<ExpertPlace> places_;  // by key
  uint32_t num_experts_;
  bool prefetch_;
  bool record_trace_;
  uint32_t prefill_chunk_;
  uint64_t slot_bytes_;
  PageMemory memory_;
  PolicyOptions policy_options_;
  std::unique_ptr<EvictionPolicy> policy_;
  std::vector<uint32_t> slot_of_;  // by key, or kNoSlot
  std::vector<Slot> slots_;
  std::vector<uint64_t> uses_;  // by key

  // The current step of a layer.
  uint32_t layer_ = 0;
  std::vector<ExpertKey> missing_;  // without a slot yet, the next one last
  std::vector<uint32_t> ready_;     // slots, wanted and in memory, not returned
  std::vector<model::ReadyExpert> failed_;
  std::vector<model::ReadyExpert> group_;
  uint32_t num_reading_ = 0;  // wanted slots
  uint32_t num_guesses_ = 0;  // slots being read for a guess

  uint64_t now_ = 0;  // tokens
  std::optional<Error> failure_;
  model::ExpertStats stats_;
  ExpertTrace trace_;
  PieceReader reader_;  // last: waits for its reads before the slots go
};

}  // namespace cachalot::stream
