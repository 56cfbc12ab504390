// SPDX-License-Identifier: Apache-2.0
// What the server answers: paths, keys, limits. One Handler for http::Server.
// [api.md 1, 11; docs/design/serve.md]
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cachalot/http/auth.h"
#include "cachalot/http/exchange.h"
#include "cachalot/serve/constraints.h"
#include "cachalot/serve/engine_loop.h"
#include "cachalot/serve/generation.h"
#include "cachalot/serve/metrics.h"
#include "cachalot/serve/served_model.h"
#include "cachalot/serve/transcripts.h"

namespace cachalot::serve {

struct ServiceOptions {
  http::ApiKeys keys;
  bool share_cache = false;     // prefixes are shared between keys and users
  uint32_t parallel = 16;       // requests in a step
  uint32_t max_requests = 272;  // running and waiting; beyond: 429
  bool strict_model = false;    // other names than the served model's are refused
  bool log_prompts = false;
  std::function<void(std::string_view line)> log;  // one line a request; may be empty
};

// Thread-safe.
class Service {
 public:
  Service(ServedModel model, std::unique_ptr<engine::Engine> engine, ServiceOptions options);
  ~Service();

  // An http::Gate: refuses a wrong key before its body is read.
  std::optional<http::Response> Admit(const http::Request& request);
  // An http::Handler.
  void Handle(const std::shared_ptr<http::Exchange>& exchange);
  // For /metrics: how many connections are open.
  void SetConnectionCounter(std::function<size_t()> counter) { connections_ = std::move(counter); }

  // New requests get 503 from now on; /health too.
  void Drain() { draining_ = true; }
  // Whether all requests ended before the deadline; returns as soon as they have.
  bool WaitIdle(std::chrono::steady_clock::time_point deadline) { return loop_.WaitIdle(deadline); }
  // Ends what still runs, each reply in its protocol's way.
  void Stop() { loop_.Stop(); }

 private:
  void Generate(api::Surface surface, const std::shared_ptr<http::Exchange>& exchange);
  void CountTokens(api::Surface surface, const std::shared_ptr<http::Exchange>& exchange);
  void Tokenize(const std::shared_ptr<http::Exchange>& exchange);
  void TokenizeChat(const std::shared_ptr<http::Exchange>& exchange);
  void Detokenize(const std::shared_ptr<http::Exchange>& exchange);
  void ApplyTemplate(const std::shared_ptr<http::Exchange>& exchange);
  void Models(const std::shared_ptr<http::Exchange>& exchange, std::string_view id);
  void Slots(const std::shared_ptr<http::Exchange>& exchange);
  void Health(const std::shared_ptr<http::Exchange>& exchange);
  void Cache(const std::shared_ptr<http::Exchange>& exchange);
  http::Response ErrorResponse(api::Surface surface, const api::ApiError& error);
  api::ApiStatus CheckModel(const api::GenerateRequest& request) const;
  kvcache::CacheScope ScopeOf(const http::Request& request, std::string_view user_id) const;
  void Reply(const std::shared_ptr<http::Exchange>& exchange, int status, std::string body,
             std::string content_type = "application/json");
  void ReplyError(const std::shared_ptr<http::Exchange>& exchange, api::Surface surface,
                  const api::ApiError& error);

  const ServedModel model_;
  const ServiceOptions options_;
  Metrics metrics_;
  Transcripts transcripts_;
  CallTexts call_texts_;
  Constraints constraints_;
  EngineLoop loop_;
  GenerationContext context_;
  std::function<size_t()> connections_;
  std::atomic<bool> draining_ = false;
};

// The path without the prefixes one router knows under several names ("/v1", "/beta",
// "/anthropic/v1"): "/chat/completions".
std::string_view CanonicalPath(std::string_view target);

}  // namespace cachalot::serve
