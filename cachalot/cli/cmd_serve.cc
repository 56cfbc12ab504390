// SPDX-License-Identifier: Apache-2.0
// cachalot serve: an HTTP server for chats and agents. [docs/design/serve.md]
#include <pthread.h>

#include <chrono>
#include <csignal>
#include <ctime>
#include <filesystem>

#include "cachalot/base/strings.h"
#include "cachalot/chat/markers.h"
#include "cachalot/cli/cache_flags.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/text_model.h"
#include "cachalot/http/auth.h"
#include "cachalot/http/server.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/serve/service.h"

namespace cachalot::cli {
namespace {

using namespace std::chrono_literals;

struct ServeFlags {
  EngineFlags engine;
  CacheFlags cache;
  http::ServerOptions http;
  std::string model_argument;
  std::string name;
  std::vector<std::string> keys;
  std::string key_file;
  std::string cache_scope = "key";
  uint64_t kv_memory = 0;
  uint32_t parallel = 16;
  uint32_t queue = 256;
  uint32_t drain_seconds = 30;
  uint32_t write_timeout_seconds = 30;
  uint32_t ping_seconds = 10;
  double prefill_slack = 2.5;
  uint32_t share_reads = 0;
  bool strict_model = false;
  bool log_prompts = false;
  bool quiet = false;
};

// The same text means the same answers: configuration, numerics and instruction set.
std::string Fingerprint(const TextModel& model, const engine::Engine& engine,
                        const std::string& numerics) {
  std::string what = StrCat(numerics, kernels::TargetName(engine.target()));
  const auto config =
      io::ReadFile((std::filesystem::path(model.dir) / "config.json").string(), uint64_t{1} << 20);
  if (config.ok()) what += *config;
  return fmt::format("fp_{:016x}", http::Sha256Prefix(what));
}

Result<serve::ServedModel> Describe(const ServeFlags& flags, const TextModel& model,
                                    const engine::Engine& engine) {
  serve::ServedModel served;
  CACHALOT_TRY(served.format, chat::DetectFormatOfDir(model.dir));
  const std::filesystem::path dir = std::filesystem::weakly_canonical(model.dir);
  served.name = flags.name.empty() ? dir.filename().string() : flags.name;
  served.fingerprint = Fingerprint(model, engine, flags.engine.numerics);
  served.tokenizer = model.tokenizer;
  served.stop_tokens = model.stop_tokens;
  served.plain_prefix = model.plain_prefix;
  served.think_close = model.tokenizer->FindSpecial(chat::kThinkClose);
  served.vocab_size = model.weights->config.vocab_size;
  served.max_context = engine.max_context();
  served.drafts = model.weights->mtp.has_value() && flags.engine.speculate != "off";
  served.loaded_at = std::time(nullptr);
  return served;
}

sigset_t EndSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

// Refuses what is new, lets what runs end until the deadline, then ends it. A second signal kills.
void ShutDown(const ServeFlags& flags, serve::Service& service, http::Server& server) {
  const sigset_t signals = EndSignals();
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  service.Drain();
  fmt::print(stderr, "ending: running requests have {} s; a second signal ends at once\n",
             flags.drain_seconds);
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::seconds(flags.drain_seconds);
  service.WaitIdle(deadline);
  service.Stop();
  server.Stop(2s);
}

Status Serve(ServeFlags flags) {
  // Before any thread starts, so that all inherit it and only sigwait sees the signals.
  const sigset_t signals = EndSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  serve::ServiceOptions options;
  CACHALOT_TRY(options.keys, http::ApiKeys::Load(flags.keys, flags.key_file));
  const bool open = options.keys.empty();
  options.share_cache = flags.cache_scope == "server";
  options.parallel = flags.parallel;
  options.max_requests = flags.parallel + flags.queue;
  options.log_prompts = flags.log_prompts;
  options.strict_model = flags.strict_model;
  if (!flags.quiet) {
    options.log = [](std::string_view line) { fmt::print(stderr, "{}\n", line); };
  }
  flags.http.write_timeout = std::chrono::seconds(flags.write_timeout_seconds);
  flags.http.keep_alive_interval = std::chrono::seconds(flags.ping_seconds);
  CACHALOT_TRY(TextModel model, OpenTextModel(flags.engine, {.sequences = flags.parallel,
                                                             .kv_bytes = flags.kv_memory}));
  engine::EngineOptions engine_options = flags.engine.ToEngineOptions(*model.weights);
  engine_options.max_sequences = flags.parallel;
  engine_options.kv_memory_bytes = flags.kv_memory;
  engine_options.prefill_slack = flags.prefill_slack;
  engine_options.share_reads = flags.share_reads;
  CACHALOT_TRY(engine_options.disk,
               flags.cache.Open([](std::string_view line) { fmt::print(stderr, "{}\n", line); }));
  CACHALOT_TRY(auto engine, engine::Engine::Create(model.weights, engine_options));
  CACHALOT_TRY(serve::ServedModel served, Describe(flags, model, *engine));
  serve::Service service(std::move(served), std::move(engine), std::move(options));
  CACHALOT_TRY(const auto server,
               http::Server::Start(
                   flags.http, [&service](std::shared_ptr<http::Exchange> e) { service.Handle(e); },
                   [&service](const http::Request& request) { return service.Admit(request); }));
  service.SetConnectionCounter([&server = *server] { return server.open_connections(); });
  if (server->max_connections() < flags.http.max_connections) {
    fmt::print(stderr, "note: at most {} connections, the limit of open files is too low for {}\n",
               server->max_connections(), flags.http.max_connections);
  }
  if (open && flags.http.host != "127.0.0.1" && flags.http.host != "localhost") {
    fmt::print(stderr, "warning: {} can be reached by others and no --api-key is set\n",
               flags.http.host);
  }
  fmt::print("listening on {}://{}:{}\n", flags.http.tls_cert.empty() ? "http" : "https",
             flags.http.host, server->port());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  ShutDown(flags, service, *server);
  return SaveExperience(flags.engine, *model.weights);
}

void AddHttpFlags(CLI::App& command, ServeFlags& flags) {
  const auto add = [&command](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group("HTTP");
  };
  add("--host", flags.http.host, "Address to listen on (default: 127.0.0.1)");
  add("--port", flags.http.port, "Port; 0: any free one (default: 8080)");
  add("--api-key", flags.keys, "Key that clients must send; may be repeated (default: none)");
  add("--api-key-file", flags.key_file, "Keys, one a line");
  add("--tls-cert", flags.http.tls_cert, "PEM certificate and chain: serve https");
  add("--tls-key", flags.http.tls_key, "PEM key of the certificate");
  add("--cors-origins", flags.http.cors_origins, "Origins whose pages may call (default: none)");
  add("--max-body", flags.http.max_body_bytes, "Bytes of a request, e.g. 16M (default: 64M)")
      ->transform(CLI::AsSizeValue(false));
  add("--write-timeout", flags.write_timeout_seconds,
      "Seconds after which a client that takes nothing is dropped (default: 30)")
      ->check(CLI::Range(1, 86400));
  add("--ping-interval", flags.ping_seconds,
      "Seconds between keep-alives of a silent stream; 0: none (default: 10)")
      ->check(CLI::Range(0, 86400));
  add("--max-connections", flags.http.max_connections, "Open connections (default: 4096)");
  add("--drain", flags.drain_seconds, "Seconds that running requests get at the end (default: 30)");
}

}  // namespace

void RegisterServe(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = app.add_subcommand(
      "serve", "An HTTP server for chats and agents: OpenAI and Anthropic protocols, and a page");
  AddEngineFlags(*command, flags->engine, /*with_context=*/true);
  command->add_option("MODEL", flags->model_argument, "Model, as -m");
  command->add_option("--name", flags->name, "Model name shown to clients (default: the folder's)");
  command->add_option("--parallel", flags->parallel, "Requests in one step (default: 16)")
      ->check(CLI::Range(1, 4096));
  command->add_option("--queue", flags->queue, "Requests that may wait (default: 256)");
  command
      ->add_option("--kv-memory", flags->kv_memory,
                   "KV memory of running requests and remembered prefixes, e.g. 4G (default: twice "
                   "--parallel full contexts; memory is used as it fills)")
      ->transform(CLI::AsSizeValue(false));
  command
      ->add_option("--cache-scope", flags->cache_scope,
                   "Who shares prefixes: key (one API key and user) or server (default: key)")
      ->check(CLI::IsMember({"key", "server"}));
  command
      ->add_option("--prefill-slack", flags->prefill_slack,
                   "A step with prompts may last this many times one without (default: 2.5)")
      ->check(CLI::Range(1.0, 1000.0));
  command
      ->add_option("--share-reads", flags->share_reads,
                   "With streamed experts: prompts let so many steps of running streams pass, then "
                   "read more at once (default: 0)")
      ->check(CLI::Range(0, 1000));
  AddServeCacheFlags(*command, flags->cache);
  AddHttpFlags(*command, *flags);
  command->add_flag("--strict-model", flags->strict_model,
                    "Refuse requests for a model of another name (default: any name will do)");
  command->add_flag("--log-prompts", flags->log_prompts, "Write prompts to the log");
  command->add_flag("--quiet", flags->quiet, "No log line per request");
  SetExamples(*command,
              "cachalot serve\n"
              "cachalot serve flash --host 0.0.0.0 --api-key-file keys.txt --kv-memory 8G\n"
              "cachalot serve --kv-disk /var/cache/cachalot --kv-disk-size 64G\n"
              "curl -s localhost:8080/v1/chat/completions -d "
              "'{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}'");
  command->callback([flags, &exit_code] {
    if (!flags->model_argument.empty()) flags->engine.model = flags->model_argument;
    const Status status = Serve(*flags);
    if (!status.ok()) exit_code = Report(status.error());
  });
}

}  // namespace cachalot::cli
