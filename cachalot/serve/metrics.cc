// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <chrono>
#include <mutex>

#include "cachalot/base/json.h"

namespace cachalot::serve {
namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;

const Histogram::BucketBoundaries kSeconds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                                              2.5,   5,    10,    25,   50,  100,  250};
const Histogram::BucketBoundaries kTokens = {1,    4,     16,    64,     256,    1024,
                                             4096, 16384, 65536, 262144, 1048576};

Gauge& AddGauge(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}
Counter& AddCounter(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}
Histogram& AddHistogram(prometheus::Registry& registry, const char* name, const char* help,
                        const Histogram::BucketBoundaries& bounds) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, bounds);
}

// Counters only grow: brings one up to what the engine counted.
void RaiseTo(Counter& counter, double value) {
  const double missing = value - counter.Value();
  if (missing > 0) counter.Increment(missing);
}

}  // namespace

struct Metrics::Impl {
  void SetDisk(const engine::EngineStats& stats);
  void SetExperts(const model::ExpertStats& stats);

  prometheus::Registry registry;
  std::mutex gauges;  // Text() sets them one after the other
  Gauge& running = AddGauge(registry, "cachalot_requests_running", "Requests in the batch");
  Gauge& waiting = AddGauge(registry, "cachalot_requests_waiting", "Requests in the queue");
  Gauge& connections = AddGauge(registry, "cachalot_http_connections", "Open HTTP connections");
  Gauge& kv_memory = AddGauge(registry, "cachalot_kv_memory_bytes", "KV memory there is");
  Gauge& kv_reserved =
      AddGauge(registry, "cachalot_kv_reserved_bytes", "KV memory reserved by running requests");
  Gauge& kv_remembered =
      AddGauge(registry, "cachalot_kv_remembered_bytes", "KV memory of remembered prefixes");
  Gauge& checkpoints =
      AddGauge(registry, "cachalot_prefix_checkpoints", "Remembered positions to go on from");
  Counter& hits = AddCounter(registry, "cachalot_prefix_cache_hits_total",
                             "Requests that went on from a remembered prefix");
  Counter& misses = AddCounter(registry, "cachalot_prefix_cache_misses_total",
                               "Requests that looked for one in vain");
  Counter& evicted =
      AddCounter(registry, "cachalot_prefix_evictions_total", "Checkpoints dropped for room");
  Counter& steps = AddCounter(registry, "cachalot_steps_total", "Forward steps");
  Counter& held_steps = AddCounter(registry, "cachalot_held_steps_total",
                                   "Of those, that prompts let pass (--share-reads)");
  Counter& step_seconds = AddCounter(registry, "cachalot_step_seconds_total",
                                     "Time in steps, sampling and cache work included");
  Counter& forward_seconds = AddCounter(registry, "cachalot_forward_seconds_total",
                                        "Of the time in steps: the model's forward passes");
  Counter& draft_seconds = AddCounter(registry, "cachalot_draft_seconds_total",
                                      "Of the time in steps: drafting for speculation");
  Counter& drafted = AddCounter(registry, "cachalot_draft_tokens_total",
                                "Drafted tokens that were verified, right or not");
  Counter& accepted =
      AddCounter(registry, "cachalot_draft_tokens_accepted_total", "Of those, right");
  Counter& sample_seconds = AddCounter(registry, "cachalot_sample_seconds_total",
                                       "Of the time in steps: sampling, with masks");
  Counter& mask_seconds = AddCounter(registry, "cachalot_mask_seconds_total",
                                     "Of the time in sampling: masks of structured output");
  Counter& reply_seconds =
      AddCounter(registry, "cachalot_reply_seconds_total",
                 "Time of the engine's thread between steps: text, JSON, handing to HTTP");
  Counter& prompt = AddCounter(registry, "cachalot_prompt_tokens_total", "Prompt tokens computed");
  Counter& reused =
      AddCounter(registry, "cachalot_prompt_tokens_reused_total", "Prompt tokens remembered");
  Gauge& disk_bytes =
      AddGauge(registry, "cachalot_kv_disk_bytes", "Records of the KV cache on disk");
  Gauge& disk_queue =
      AddGauge(registry, "cachalot_kv_disk_queue_bytes", "Waiting to be written to disk");
  Gauge& restoring =
      AddGauge(registry, "cachalot_kv_disk_restoring", "Requests whose prefix is being read");
  Counter& disk_tokens = AddCounter(registry, "cachalot_kv_disk_tokens_reused_total",
                                    "Of the prompt tokens remembered: from disk");
  Counter& disk_restores =
      AddCounter(registry, "cachalot_kv_disk_restores_total", "Requests that went on from disk");
  Counter& restore_seconds = AddCounter(registry, "cachalot_kv_disk_restore_seconds_total",
                                        "Time those waited for their prefix");
  Counter& disk_read =
      AddCounter(registry, "cachalot_kv_disk_read_bytes_total", "Read from the KV cache on disk");
  Counter& disk_written =
      AddCounter(registry, "cachalot_kv_disk_written_bytes_total", "Written to it");
  Counter& disk_dropped = AddCounter(registry, "cachalot_kv_disk_dropped_total",
                                     "Records not written: queue or disk full, errors");
  Counter& disk_evicted =
      AddCounter(registry, "cachalot_kv_disk_evictions_total", "Records dropped for room on disk");
  Counter& disk_damaged = AddCounter(registry, "cachalot_kv_disk_damaged_total",
                                     "Records that did not verify or could not be read");
  Gauge& expert_slots =
      AddGauge(registry, "cachalot_expert_slots", "Streamed experts that fit in memory");
  prometheus::Family<Counter>& experts_wanted =
      prometheus::BuildCounter()
          .Name("cachalot_experts_wanted_total")
          .Help("Distinct experts that steps asked for, by layer and whether they were in memory")
          .Register(registry);
  prometheus::Family<Counter>& expert_wait = prometheus::BuildCounter()
                                                 .Name("cachalot_expert_wait_seconds_total")
                                                 .Help("Time steps waited for experts, by layer")
                                                 .Register(registry);
  prometheus::Family<Counter>& expert_read_bytes =
      prometheus::BuildCounter()
          .Name("cachalot_expert_read_bytes_total")
          .Help("Experts read from disk, by copy: 0 is the model's folder, 1 --weights-mirror")
          .Register(registry);
  Counter& expert_guesses =
      AddCounter(registry, "cachalot_expert_guesses_total", "Experts read ahead");
  Counter& expert_guesses_right =
      AddCounter(registry, "cachalot_expert_guesses_right_total", "Of those, asked for later");
  Counter& expert_retries =
      AddCounter(registry, "cachalot_expert_read_retries_total", "Reads that were tried again");
  Counter& expert_failures =
      AddCounter(registry, "cachalot_expert_read_failures_total", "Experts that could not be read");
  Counter& expert_busy = AddCounter(registry, "cachalot_expert_read_busy_seconds_total",
                                    "Time with reads of experts in flight");
  Counter& expert_queue = AddCounter(registry, "cachalot_expert_read_queue_seconds_total",
                                     "Reads in flight, summed over time; by busy: queue depth");
  Counter& generated = AddCounter(registry, "cachalot_generation_tokens_total", "Tokens generated");
  prometheus::Family<Counter>& requests = prometheus::BuildCounter()
                                              .Name("cachalot_requests_total")
                                              .Help("Finished requests")
                                              .Register(registry);
  prometheus::Family<Counter>& http = prometheus::BuildCounter()
                                          .Name("cachalot_http_requests_total")
                                          .Help("HTTP requests by status")
                                          .Register(registry);
  Histogram& first_token = AddHistogram(registry, "cachalot_time_to_first_token_seconds",
                                        "From the request to its first token", kSeconds);
  Histogram& interval = AddHistogram(registry, "cachalot_inter_token_latency_seconds",
                                     "Between two tokens of an answer", kSeconds);
  Histogram& total = AddHistogram(registry, "cachalot_e2e_request_latency_seconds",
                                  "From the request to the end of its answer", kSeconds);
  Histogram& prompt_size = AddHistogram(registry, "cachalot_request_prompt_tokens",
                                        "Prompt tokens of a request", kTokens);
  Histogram& answer_size =
      AddHistogram(registry, "cachalot_request_generation_tokens", "Tokens of an answer", kTokens);
};

// Pre: there is a cache on disk.
void Metrics::Impl::SetDisk(const engine::EngineStats& stats) {
  const auto count = [](uint64_t value) { return static_cast<double>(value); };
  disk_bytes.Set(count(stats.disk->bytes));
  disk_queue.Set(count(stats.disk->queued_bytes));
  restoring.Set(stats.restoring);
  RaiseTo(disk_tokens, count(stats.disk_tokens));
  RaiseTo(disk_restores, count(stats.disk_restores));
  RaiseTo(restore_seconds, stats.restore_seconds);
  RaiseTo(disk_read, count(stats.disk->read_bytes));
  RaiseTo(disk_written, count(stats.disk->written_bytes));
  RaiseTo(disk_dropped, count(stats.disk->dropped));
  RaiseTo(disk_evicted, count(stats.disk->evicted));
  RaiseTo(disk_damaged, count(stats.disk->corrupt));
}

void Metrics::Impl::SetExperts(const model::ExpertStats& stats) {
  const auto count = [](uint64_t value) { return static_cast<double>(value); };
  expert_slots.Set(count(stats.num_slots));
  for (size_t l = 0; l < stats.layers.size(); ++l) {
    const model::ExpertStats::Layer& layer = stats.layers[l];
    const std::string name = std::to_string(l);
    RaiseTo(experts_wanted.Add({{"layer", name}, {"hit", "yes"}}), count(layer.hits));
    RaiseTo(experts_wanted.Add({{"layer", name}, {"hit", "no"}}), count(layer.wanted - layer.hits));
    RaiseTo(expert_wait.Add({{"layer", name}}), layer.wait_seconds);
  }
  for (size_t c = 0; c < stats.copy_bytes.size(); ++c) {
    RaiseTo(expert_read_bytes.Add({{"copy", std::to_string(c)}}), count(stats.copy_bytes[c]));
  }
  RaiseTo(expert_guesses, count(stats.guessed));
  RaiseTo(expert_guesses_right, count(stats.guessed_right));
  RaiseTo(expert_retries, count(stats.retries));
  RaiseTo(expert_failures, count(stats.failures));
  RaiseTo(expert_busy, stats.busy_seconds);
  RaiseTo(expert_queue, stats.queue_seconds);
}

Metrics::Metrics(const ServedModel& model) : impl_(std::make_unique<Impl>()) {
  prometheus::BuildGauge()
      .Name("cachalot_build_info")
      .Help("What is running")
      .Register(impl_->registry)
      .Add({{"model", model.name}, {"fingerprint", model.fingerprint}})
      .Set(1);
}
Metrics::~Metrics() = default;

void Metrics::RequestDone(const RequestRecord& record) {
  impl_->requests
      .Add({{"surface", std::string(record.surface)}, {"finish", std::string(record.finish)}})
      .Increment();
  if (record.first_token_s > 0) impl_->first_token.Observe(record.first_token_s);
  impl_->total.Observe(record.total_s);
  impl_->prompt_size.Observe(record.prompt_tokens);
  impl_->answer_size.Observe(record.completion_tokens);
}

void Metrics::TokenInterval(double seconds) { impl_->interval.Observe(seconds); }

void Metrics::HttpRequest(int status) {
  impl_->http.Add({{"status", std::to_string(status)}}).Increment();
}

std::string Metrics::Text(const LoopStats& loop, size_t open_connections) {
  const engine::EngineStats& stats = loop.engine;
  const auto count = [](uint64_t value) { return static_cast<double>(value); };
  const std::lock_guard lock(impl_->gauges);
  impl_->running.Set(stats.running);
  impl_->waiting.Set(stats.waiting);
  impl_->connections.Set(static_cast<double>(open_connections));
  impl_->kv_memory.Set(static_cast<double>(stats.kv_memory_bytes));
  impl_->kv_reserved.Set(static_cast<double>(stats.kv_reserved_bytes));
  impl_->kv_remembered.Set(static_cast<double>(stats.cache.bytes));
  impl_->checkpoints.Set(static_cast<double>(stats.cache.checkpoints));
  RaiseTo(impl_->hits, count(stats.cache.hits));
  RaiseTo(impl_->misses, count(stats.cache.misses));
  RaiseTo(impl_->evicted, count(stats.cache.evicted));
  RaiseTo(impl_->steps, count(stats.steps));
  RaiseTo(impl_->held_steps, count(stats.held_steps));
  RaiseTo(impl_->step_seconds, stats.step_seconds);
  RaiseTo(impl_->forward_seconds, stats.forward_seconds);
  RaiseTo(impl_->draft_seconds, stats.draft_seconds);
  RaiseTo(impl_->drafted, count(stats.drafted_tokens));
  RaiseTo(impl_->accepted, count(stats.accepted_tokens));
  RaiseTo(impl_->sample_seconds, stats.sample_seconds);
  RaiseTo(impl_->mask_seconds, stats.mask_seconds);
  RaiseTo(impl_->reply_seconds, loop.reply_seconds);
  RaiseTo(impl_->prompt, count(stats.prompt_tokens));
  RaiseTo(impl_->reused, count(stats.reused_tokens));
  RaiseTo(impl_->generated, count(stats.generated_tokens));
  if (stats.disk) impl_->SetDisk(stats);
  if (stats.experts) impl_->SetExperts(*stats.experts);
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

std::string LogLine(const RequestRecord& record, std::string_view prompt) {
  const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  Json line = {{"time_ms", now.count()},
               {"id", record.id},
               {"surface", record.surface},
               {"status", record.status},
               {"finish", record.finish},
               {"stream", record.stream},
               {"prompt_tokens", record.prompt_tokens},
               {"cached_tokens", record.cached_tokens},
               {"completion_tokens", record.completion_tokens},
               {"first_token_s", record.first_token_s},
               {"total_s", record.total_s}};
  if (!prompt.empty()) line["prompt"] = prompt;
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace cachalot::serve
