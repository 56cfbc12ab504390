// SPDX-License-Identifier: Apache-2.0
// Shared by the files of Engine: engine.cc lets requests in and out, engine_step.cc runs a step,
// engine_prefixes.cc saves and restores what prompts have in common.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "cachalot/engine/disk_tier.h"
#include "cachalot/engine/drafter.h"
#include "cachalot/engine/engine.h"
#include "cachalot/engine/speculation_gauge.h"
#include "cachalot/engine/step_budget.h"

namespace cachalot::engine {

constexpr uint32_t kMaxDraft = kvcache::kMaxRewind;  // rejected ones are rewound

using Clock = std::chrono::steady_clock;

inline double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// A request from Submit to its last event.
struct Task {
  RequestId id{};
  Request request;
  std::vector<uint32_t> tokens;  // prompt, then generated; reserved to the end of the context
  size_t prompt_size = 0;
  size_t max_tokens = 0;                        // prompt and generated together
  std::unique_ptr<kvcache::Sequence> sequence;  // null while queued
  uint64_t kv_bytes = 0;                        // reserved while running: its longest
  uint32_t reused = 0;
  bool cancelled = false;
  std::unique_ptr<Restore> restore;  // while its prefix is read from disk: not to be stepped
  Clock::time_point restore_begin{};
  bool broken = false;       // a step of it failed: its sequence is worth nothing
  bool approximate = false;  // went on from an approximate state: nothing of it may be saved
  SavedPath saved;
  std::array<uint32_t, kMaxDraft> draft{};  // guesses of what follows tokens.back()
  uint32_t num_drafted = 0;

  size_t fed() const { return sequence->position(); }
  bool ready() const { return restore == nullptr; }
  bool decoding() const { return fed() + 1 == tokens.size() && tokens.size() > prompt_size; }
};

struct Engine::Impl {
  class Chooser final : public TokenChooser {
   public:
    explicit Chooser(Impl& engine) : engine_(engine) {}
    uint32_t Choose(size_t request, uint32_t ahead, std::span<float> logits) override;

   private:
    Impl& engine_;
  };

  Impl(std::shared_ptr<const model::Weights> w, const EngineOptions& o, uint32_t context,
       const Placement& placement)
      : weights(std::move(w)),
        options(o),
        max_context(context),
        pool(placement),
        sampler(weights->config.vocab_size),
        budget(*weights, o.prefill_slack) {}

  struct Part;

  size_t MaxTokens(const Request& request) const;  // prompt and answer
  uint64_t KvBytes(size_t num_tokens) const;
  void EndCancelled();
  void Admit();
  Status Start(Task& task);
  Status GoOnFromCache(Task& task);
  Status PollRestores();
  Status PollRestore(Task& task, bool wait);
  void Reserve(int64_t bytes);
  void PlanStep();
  void PlanPrompts(uint32_t decodes);
  bool HoldPrompts(uint32_t decodes);
  uint32_t PromptPart(const Task& task, uint32_t share) const;
  Status RunStep();
  void PlanInputs();
  void TakeOutputs();
  void FailPart(Part& part);
  Status Draft();
  void CollectDraftRequests();
  void AdvanceParts();
  uint32_t SampleLogits(Task& task, std::span<float> logits, size_t ahead,
                        TokenConstraint* constraint);
  uint32_t SampleRow(Task& task, std::span<float> logits);
  void Finish(Task& task, FinishReason reason);
  void Remember(Task& task, bool end);
  void SaveToDisk(Task& task, bool end);
  void RemoveFinished();
  Task* FindTask(RequestId id);
  Status CheckFiles();

  std::shared_ptr<const model::Weights> weights;
  EngineOptions options;
  uint32_t max_context;
  kernels::Target target = kernels::Target::kScalar;
  ThreadPool pool;
  std::unique_ptr<kvcache::BlockPool> blocks;
  std::unique_ptr<kvcache::PrefixCache> cache;
  std::unique_ptr<DiskTier> disk;  // null: none
  std::unique_ptr<model::Forward> forward;
  std::unique_ptr<Drafter> drafter;  // null: no speculation
  SpeculationGauge gauge;
  Sampler sampler;
  StepBudget budget;
  EngineStats stats;

  uint64_t next_id = 1;
  std::deque<std::unique_ptr<Task>> waiting;   // by priority, then arrival
  std::vector<std::unique_ptr<Task>> running;  // in order of admission
  std::vector<Event> events;
  std::vector<RequestId> finished;

  // One step.
  struct Part {
    Task* task;
    uint32_t count;     // tokens fed
    bool decode;        // the token sampled last, then guesses; else a part of the prompt
    uint32_t kept = 0;  // of those fed, how many stay
    bool finished = false;

    size_t end() const { return task->fed() + kept; }  // before the sequence advances
  };
  std::vector<Part> parts;
  uint32_t steps_held = 0;                                 // that prompts let pass, up to this one
  std::vector<std::array<uint32_t, 1 + kMaxDraft>> feeds;  // of the decodes, in order
  std::vector<DraftRequest> draft_requests;
  std::vector<Task*> draft_tasks;
  std::vector<model::SequenceInput> inputs;
  std::vector<uint32_t> logit_rows;
  std::vector<uint8_t> failed;    // of inputs: needed an expert that could not be read
  std::vector<float> logits;      // [max_sequences (1 + drafts), V]
  std::vector<float> raw_logits;  // [V]: a row as the model gave it, for logprobs
  double accept_seconds = 0;      // of all steps: constraints following the tokens
  Clock::time_point next_file_check{};
};

}  // namespace cachalot::engine
