// SPDX-License-Identifier: Apache-2.0
#include "cachalot/stream/expert_cache.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"

namespace cachalot::stream {
namespace {

using Clock = std::chrono::steady_clock;
using Urgency = PieceReader::Urgency;

// While others are being read: enough for a parallel region, few enough that slots come back soon.
constexpr size_t kGroupWhileReading = 8;
// Of the slots, at most so many are read for guesses at a time.
constexpr uint64_t kGuessShare = 4;

model::ExpertWeights BindSlot(const ExpertPlace& place, const uint8_t* slot) {
  model::ExpertWeights weights = place.format;
  size_t i = 0;
  for (WeightView* view : {&weights.w1, &weights.w3, &weights.w2}) {
    const bool scaled = view->kind == WeightKind::kFP8 || view->kind == WeightKind::kFP4;
    view->data = slot + place.tensors[i];
    view->scales = scaled ? slot + place.tensors[i + 1] : nullptr;
    i += 2;
  }
  return weights;
}

}  // namespace

Result<std::unique_ptr<ExpertCache>> ExpertCache::Create(std::vector<ExpertPlace> places,
                                                         uint32_t num_experts,
                                                         std::vector<FileCopies> files,
                                                         const ExpertCacheOptions& options) {
  uint64_t slot_bytes = 0;
  for (const ExpertPlace& place : places) {
    slot_bytes = std::max(slot_bytes, place.runs.back().at + place.runs.back().bytes());
  }
  if (options.num_slots < kMinSlots) {
    return Error{ErrorCode::kResourceExhausted,
                 StrCat("memory for ", options.num_slots, " experts of ", slot_bytes,
                        " bytes, at least ", kMinSlots, " are needed; raise --memory")};
  }
  const uint64_t num_slots = std::min<uint64_t>(options.num_slots, places.size());
  CACHALOT_TRY(PageMemory memory, PageMemory::Allocate(num_slots * slot_bytes));
  ExpertCacheOptions used = options;
  used.num_slots = num_slots;
  return std::unique_ptr<ExpertCache>(new ExpertCache(
      std::move(places), num_experts, std::move(files), used, slot_bytes, std::move(memory)));
}

ExpertCache::ExpertCache(std::vector<ExpertPlace> places, uint32_t num_experts,
                         std::vector<FileCopies> files, const ExpertCacheOptions& options,
                         uint64_t slot_bytes, PageMemory memory)
    : places_(std::move(places)),
      num_experts_(num_experts),
      prefetch_(options.prefetch && options.num_slots < places_.size()),
      record_trace_(options.record_trace),
      prefill_chunk_(options.prefill_chunk),
      slot_bytes_(slot_bytes),
      memory_(std::move(memory)),
      policy_options_{.kind = options.policy,
                      .num_layers = static_cast<uint32_t>(places_.size() / num_experts),
                      .num_experts = num_experts,
                      .half_life = options.half_life},
      policy_(MakePolicy(policy_options_)),
      slot_of_(places_.size(), kNoSlot),
      slots_(options.num_slots),
      uses_(places_.size()),
      reader_(std::move(files), static_cast<uint32_t>(options.num_slots), options.reader) {
  for (auto* list : {&failed_, &group_}) list->reserve(num_experts);
  missing_.reserve(num_experts);
  ready_.reserve(num_experts);
  stats_.layers.resize(policy_options_.num_layers);
  stats_.num_slots = options.num_slots;
  stats_.slot_bytes = slot_bytes;
}

void ExpertCache::Begin(uint32_t layer, size_t num_tokens,
                        std::span<const model::WantedExpert> wanted) {
  CACHALOT_CHECK(missing_.empty() && num_reading_ == 0 && ready_.empty());
  ReturnLeases();
  layer_ = layer;
  if (layer == 0) now_ += num_tokens;  // a step runs through all layers: its tokens count once
  if (record_trace_) trace_.Add(layer, now_, wanted);
  for (const model::WantedExpert& w : wanted) {
    const ExpertKey key = layer * num_experts_ + w.expert;
    uses_[key] += w.num_tokens;
    policy_->Used(key, w.num_tokens, now_);
    WantOne(key, stats_.layers[layer]);
  }
  ForgetGuesses(layer);
  std::ranges::reverse(missing_);
  StartMissing();
  static_cast<void>(TakeFinished(/*wait=*/false));
}

void ExpertCache::WantOne(ExpertKey key, model::ExpertStats::Layer& layer) {
  ++layer.wanted;
  const uint32_t index = slot_of_[key];
  if (index == kNoSlot) {
    missing_.push_back(key);
    return;
  }
  Slot& slot = slots_[index];
  if (slot.guessed) ++stats_.guessed_right;
  slot.wanted = true;
  if (slot.state == SlotState::kReady) {
    ++layer.hits;
    ready_.push_back(index);
  } else {
    ++layer.late;
    ++num_reading_;
    --num_guesses_;
    reader_.Promote(index);
  }
  slot.guessed = false;
}

// What was guessed about a layer that has asked by now is of no use any more: it is not read to its
// end, and what was held for the layer may go.
void ExpertCache::ForgetGuesses(uint32_t layer) {
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = slots_[i];
    if (slot.held_for != layer) continue;
    slot.held_for = kNoLayer;
    if (slot.state != SlotState::kReading || slot.wanted) continue;
    const PieceReader::Dropped dropped = reader_.Drop(i);
    if (dropped == PieceReader::Dropped::kNot) continue;
    slot_of_[slot.key] = kNoSlot;
    --num_guesses_;
    slot.guessed = false;
    slot.state = dropped == PieceReader::Dropped::kAtOnce ? SlotState::kFree : SlotState::kDropped;
  }
}

std::span<const model::ReadyExpert> ExpertCache::Next(bool wait) {
  ReturnLeases();
  StartMissing();
  while (TakeFinished(/*wait=*/false)) {
  }
  if (wait && ready_.empty() && failed_.empty() && (num_reading_ > 0 || !missing_.empty())) {
    const auto begin = Clock::now();
    const size_t waited_for = num_reading_ + missing_.size();
    while (ready_.empty() && failed_.empty()) {
      const bool arrived = TakeFinished(/*wait=*/true);
      CACHALOT_CHECK(arrived);  // something is in flight, or there would be a slot
      StartMissing();
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    stats_.layers[layer_].wait_seconds += seconds;
    policy_->Waited(layer_, seconds / static_cast<double>(waited_for));
  }
  group_.clear();
  group_.swap(failed_);
  const size_t most = MostPerGroup();
  while (!ready_.empty() && group_.size() < most) {
    Slot& slot = slots_[ready_.back()];
    ready_.pop_back();
    slot.wanted = false;
    slot.leased = true;
    group_.push_back({slot.key % num_experts_, &slot.weights});
  }
  return group_;
}

size_t ExpertCache::MostPerGroup() const {
  if (missing_.empty()) return num_experts_;
  // Half of the slots at most, so that the disk has somewhere to read to meanwhile.
  return std::clamp<size_t>(slots_.size() / 2, 1, kGroupWhileReading);
}

void ExpertCache::ReturnLeases() {
  for (const model::ReadyExpert& ready : group_) {
    const uint32_t index = slot_of_[layer_ * num_experts_ + ready.expert];
    if (index != kNoSlot) slots_[index].leased = false;
  }
  group_.clear();
}

// Gives slots to what is missing, as far as there are any.
void ExpertCache::StartMissing() {
  while (!missing_.empty()) {
    const ExpertKey key = missing_.back();
    const uint32_t index = TakeSlot(/*for_guess=*/false);
    if (index == kNoSlot) return;
    missing_.pop_back();
    slots_[index].wanted = true;
    ++num_reading_;
    StartRead(index, key, Urgency::kDemand);
    stats_.wanted_read_bytes += places_[key].runs.back().at + places_[key].runs.back().bytes();
  }
}

// One batch that has arrived, or false.
bool ExpertCache::TakeFinished(bool wait) {
  const auto finished = reader_.Poll(wait);
  if (!finished) return false;
  const uint32_t index = finished->batch;
  Slot& slot = slots_[index];
  if (slot.state == SlotState::kDropped) {
    slot.state = SlotState::kFree;
    return true;
  }
  if (slot.wanted) {
    --num_reading_;
  } else {
    --num_guesses_;
  }
  if (!finished->error) {
    slot.state = SlotState::kReady;
    if (slot.wanted) ready_.push_back(index);
    return true;
  }
  ++stats_.failures;
  failure_ = *finished->error;
  if (slot.wanted) failed_.push_back({slot.key % num_experts_, nullptr});
  Evict(index);
  return true;
}

void ExpertCache::Prefetch(uint32_t layer, std::span<const model::WantedExpert> likely,
                           double seconds) {
  while (TakeFinished(/*wait=*/false)) {
  }
  ReturnLeases();
  const bool certain = seconds == std::numeric_limits<double>::infinity();
  const uint64_t allowance = certain
                                 ? std::numeric_limits<uint64_t>::max()
                                 : static_cast<uint64_t>(std::max(0.0, seconds * reader_.rate()));
  uint64_t left = allowance;
  for (const model::WantedExpert& w : likely) {
    const ExpertKey key = layer * num_experts_ + w.expert;
    if (slot_of_[key] != kNoSlot) {
      slots_[slot_of_[key]].held_for = layer;
      continue;
    }
    if (left == 0 || num_guesses_ >= slots_.size() / kGuessShare) continue;
    const uint32_t index = TakeSlot(/*for_guess=*/true);
    if (index == kNoSlot) continue;
    left -= std::min(left, slot_bytes_);
    slots_[index].held_for = layer;
    slots_[index].guessed = true;
    ++num_guesses_;
    ++stats_.guessed;
    StartRead(index, key, Urgency::kGuess);
  }
  reader_.SetAllowance(allowance);
  while (TakeFinished(/*wait=*/false)) {
  }
}

uint32_t ExpertCache::TakeSlot(bool for_guess) {
  uint32_t index = ChooseVictim(/*spare_held=*/true);
  if (index == kNoSlot && !for_guess) index = ChooseVictim(/*spare_held=*/false);
  if (index != kNoSlot) Evict(index);
  return index;
}

// A free slot, or the least valuable expert that nobody uses.
uint32_t ExpertCache::ChooseVictim(bool spare_held) const {
  uint32_t victim = kNoSlot;
  double least = std::numeric_limits<double>::infinity();
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.state == SlotState::kFree) return i;
    if (slot.state != SlotState::kReady || slot.wanted || slot.leased) continue;
    if (spare_held && slot.held_for != kNoLayer) continue;
    const double value = policy_->Value(slot.key, now_);
    if (value < least) {
      least = value;
      victim = i;
    }
  }
  return victim;
}

void ExpertCache::Evict(uint32_t index) {
  Slot& slot = slots_[index];
  if (slot.state != SlotState::kFree) slot_of_[slot.key] = kNoSlot;
  slot = {};
}

void ExpertCache::StartRead(uint32_t index, ExpertKey key, Urgency urgency) {
  Slot& slot = slots_[index];
  uint8_t* memory = memory_.data() + index * slot_bytes_;
  slot.state = SlotState::kReading;
  slot.key = key;
  slot.weights = BindSlot(places_[key], memory);
  slot_of_[key] = index;
  reader_.Start(index, places_[key].runs, memory, urgency);
}

Status ExpertCache::Learn(std::span<const uint64_t> uses) {
  CACHALOT_CHECK(uses.size() == uses_.size());
  std::vector<ExpertKey> keys(uses.size());
  std::iota(keys.begin(), keys.end(), 0u);
  for (uint32_t layer = 0; layer < num_layers(); ++layer) {
    const auto row = uses.subspan(size_t{layer} * num_experts_, num_experts_);
    const auto total = static_cast<double>(std::accumulate(row.begin(), row.end(), uint64_t{0}));
    for (uint32_t e = 0; e < num_experts_ && total > 0; ++e) {
      policy_->Learned(layer * num_experts_ + e, static_cast<double>(row[e]) / total);
    }
  }
  std::ranges::stable_sort(keys, [&](ExpertKey a, ExpertKey b) { return uses[a] > uses[b]; });
  for (const ExpertKey key : keys) {
    if (uses[key] == 0) break;
    if (slot_of_[key] != kNoSlot) continue;
    const auto free = std::ranges::find(slots_, SlotState::kFree, &Slot::state);
    if (free == slots_.end()) break;
    ++num_guesses_;
    StartRead(static_cast<uint32_t>(free - slots_.begin()), key, Urgency::kDemand);
  }
  while (TakeFinished(/*wait=*/true)) {
  }
  return failure_ ? Status(*failure_) : Status();
}

Error ExpertCache::failure() const {
  return failure_.value_or(Error{ErrorCode::kInternal, "no expert failed"});
}

model::ExpertStats ExpertCache::stats() const {
  model::ExpertStats stats = stats_;
  const ReaderStats& reader = reader_.stats();
  stats.read_bytes = reader.bytes;
  stats.copy_bytes = reader.copy_bytes;
  stats.reads = reader.pieces;
  stats.retries = reader.retries;
  stats.busy_seconds = reader.busy_seconds;
  stats.queue_seconds = reader.queue_seconds;
  return stats;
}

}  // namespace cachalot::stream
