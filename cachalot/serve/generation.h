// SPDX-License-Identifier: Apache-2.0
// One request of a client from its prompts to the last byte of its reply: engine events become
// text, text becomes deltas, deltas become the protocol's bytes. [docs/design/serve.md]
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cachalot/api/reply.h"
#include "cachalot/api/request.h"
#include "cachalot/http/exchange.h"
#include "cachalot/serve/call_texts.h"
#include "cachalot/serve/engine_loop.h"
#include "cachalot/serve/metrics.h"
#include "cachalot/serve/prompt.h"
#include "cachalot/serve/served_model.h"
#include "cachalot/serve/transcripts.h"

namespace cachalot::serve {

// What all generations share; outlives them.
struct GenerationContext {
  const ServedModel& model;
  EngineLoop& loop;
  Transcripts& transcripts;
  CallTexts& call_texts;
  Metrics& metrics;
  std::function<void(std::string_view line)> log;  // may be empty
  bool log_prompts = false;
};

// Constraints are made per choice, since each walks alone; null: none.
using ConstraintFactory = std::function<std::unique_ptr<engine::TokenConstraint>(
    const api::GenerateRequest&, const Prompt&)>;

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  Generation(const GenerationContext& context, api::GenerateRequest request,
             std::vector<Prompt> prompts, kvcache::CacheScope scope, ConstraintFactory constraints,
             std::shared_ptr<http::Exchange> exchange);
  ~Generation();

  // Refuses what the engine would refuse; else answers the exchange, now (a stream) or at the end.
  // Thread-safe against nothing: called once, from a worker thread.
  api::ApiStatus Start();

 private:
  class Choice;

  engine::Request EngineRequest(uint32_t choice) const;
  void SubmitChoice(uint32_t choice);
  void SubmitSiblings(uint32_t choice);
  void CancelAll();

  // On the loop's thread, from the choices.
  void ChoiceBegun(uint32_t choice, const engine::Event& event);
  void Write(std::string bytes) { out_ += bytes; }
  void Flush();
  void ChoiceEnded();
  void Fail(const Error& error);
  void Finish(std::string_view finish, int status);

  const GenerationContext& context_;
  const api::GenerateRequest request_;
  const std::vector<Prompt> prompts_;
  const kvcache::CacheScope scope_;
  const ConstraintFactory constraints_;
  const std::string id_;
  const uint64_t seed_;
  const std::chrono::steady_clock::time_point begin_;

  std::shared_ptr<http::Exchange> exchange_;  // dropped once a stream has begun
  std::shared_ptr<http::Stream> stream_;
  std::unique_ptr<api::ReplyWriter> writer_;
  std::vector<std::shared_ptr<Choice>> choices_;
  std::string out_;  // of this event, sent together
  bool begun_ = false;
  bool finished_ = false;
  uint32_t ended_ = 0;
  api::Usage usage_;
  RequestRecord record_;
};

}  // namespace cachalot::serve
