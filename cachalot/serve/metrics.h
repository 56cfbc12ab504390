// SPDX-License-Identifier: Apache-2.0
// Counters and histograms of a server in the Prometheus text format. No user data in labels.
// [api.md 12]
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "cachalot/serve/engine_loop.h"
#include "cachalot/serve/served_model.h"

namespace cachalot::serve {

// One finished request, as metrics and the log see it.
struct RequestRecord {
  std::string id;
  std::string_view surface;  // "chat", "completions", "messages", "responses"
  std::string_view finish;   // "stop", "length", "tool_calls", "cancelled", "error", "aborted"
  int status = 200;
  bool stream = false;
  uint32_t prompt_tokens = 0;
  uint32_t cached_tokens = 0;
  uint32_t completion_tokens = 0;
  double first_token_s = 0;  // 0: there was none
  double total_s = 0;
};

// One line of JSON; `prompt` (may be empty) is logged as it is.
std::string LogLine(const RequestRecord& record, std::string_view prompt);

// Thread-safe.
class Metrics {
 public:
  explicit Metrics(const ServedModel& model);
  ~Metrics();

  void RequestDone(const RequestRecord& record);
  void TokenInterval(double seconds);  // between two tokens of a stream
  void HttpRequest(int status);
  // The exposition; gauges as of `loop`.
  std::string Text(const LoopStats& loop, size_t open_connections);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cachalot::serve
