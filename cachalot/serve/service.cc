// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/service.h"

#include <algorithm>
#include <utility>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/chat/encode.h"
#include "cachalot/serve/info.h"
#include "cachalot/serve/page.h"
#include "cachalot/tokenizer/utf8.h"

namespace cachalot::serve {
namespace {

using ExchangePtr = std::shared_ptr<http::Exchange>;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

api::Surface SurfaceOf(std::string_view path) {
  if (path.starts_with("/messages")) return api::Surface::kMessages;
  if (path.starts_with("/responses")) return api::Surface::kResponses;
  if (path.starts_with("/completions")) return api::Surface::kCompletions;
  return api::Surface::kChat;
}

// A browser's and a load balancer's business.
bool IsPublic(std::string_view path) {
  return path == "/" || path.starts_with("/web/") || path == "/health" || path == "/ready" ||
         path == "/ping";
}

api::ApiResult<Json> ParseBody(const ExchangePtr& exchange) {
  const auto json = ParseJson(exchange->request().body, "body");
  if (!json.ok()) return api::InvalidRequest("", json.error().message);
  if (!json->is_object()) return api::InvalidRequest("", "the body must be a JSON object");
  return *json;
}

// What a page of another site may send without asking is refused: text/plain always, as the hosted
// service does, and a form's type, which `curl -d` has too, where it comes from a page.
bool IsJsonType(const http::Request& request) {
  std::string type(request.Header("Content-Type"));
  type.resize(std::min(type.find(';'), type.size()));
  std::erase(type, ' ');
  std::ranges::transform(type, type.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  if (type == "application/x-www-form-urlencoded") return request.Header("Origin").empty();
  return type.empty() || type == "application/json" || type.ends_with("+json");
}

// As text, or as a list of bytes where it is none by itself. [api.md 11]
Json Piece(std::string_view bytes) {
  if (tokenizer::ValidUtf8Length(bytes, 0) == bytes.size()) return std::string(bytes);
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<uint8_t>(c));
  return list;
}

// Texts are worth keeping as long as the KV state they lead to, so they take a share of its memory
// on top of it: a token's text and id are about 10 bytes, its state in Flash 3,514. At most 64 MiB,
// since every prompt is held against all of them.
size_t TextBytes(const engine::Engine& engine, uint64_t share) {
  constexpr uint64_t kMost = uint64_t{64} << 20;
  return std::min(engine.stats().kv_memory_bytes / share, kMost);
}

}  // namespace

std::string_view CanonicalPath(std::string_view target) {
  for (const std::string_view prefix : {"/anthropic", "/beta", "/v1"}) {
    if (target.starts_with(prefix) && target.size() > prefix.size() &&
        target[prefix.size()] == '/') {
      target.remove_prefix(prefix.size());
    }
  }
  return target;
}

Service::Service(ServedModel model, std::unique_ptr<engine::Engine> engine, ServiceOptions options)
    : model_(std::move(model)),
      options_(std::move(options)),
      metrics_(model_),
      transcripts_(model_.tokenizer, TextBytes(*engine, 16)),
      call_texts_(TextBytes(*engine, 64)),
      constraints_(model_),
      loop_(std::move(engine)),
      context_{.model = model_,
               .loop = loop_,
               .transcripts = transcripts_,
               .call_texts = call_texts_,
               .metrics = metrics_,
               .log = options_.log,
               .log_prompts = options_.log_prompts} {}

Service::~Service() { Stop(); }

void Service::Handle(const ExchangePtr& exchange) {
  struct Route {
    std::string_view method, path;
    std::function<void()> answer;
  };
  const std::string_view method = exchange->request().method;
  const std::string_view path = CanonicalPath(exchange->request().target);
  const api::Surface surface = SurfaceOf(path);
  const Route routes[] = {
      {"POST", "/chat/completions", [&] { Generate(api::Surface::kChat, exchange); }},
      {"POST", "/completions", [&] { Generate(api::Surface::kCompletions, exchange); }},
      {"POST", "/messages", [&] { Generate(api::Surface::kMessages, exchange); }},
      {"POST", "/messages/count_tokens", [&] { CountTokens(api::Surface::kMessages, exchange); }},
      {"POST", "/responses", [&] { Generate(api::Surface::kResponses, exchange); }},
      {"POST", "/responses/input_tokens", [&] { CountTokens(api::Surface::kResponses, exchange); }},
      {"GET", "/models", [&] { Models(exchange, {}); }},
      {"POST", "/tokenize", [&] { Tokenize(exchange); }},
      {"POST", "/detokenize", [&] { Detokenize(exchange); }},
      {"POST", "/apply-template", [&] { ApplyTemplate(exchange); }},
      {"GET", "/health", [&] { Health(exchange); }},
      {"GET", "/ready", [&] { Health(exchange); }},
      {"GET", "/ping", [&] { Health(exchange); }},
      {"GET", "/cache", [&] { Cache(exchange); }},
      {"GET", "/props", [&] { Reply(exchange, 200, PropsBody(model_, options_.parallel)); }},
      {"GET", "/slots", [&] { Slots(exchange); }},
      {"GET", "/version",
       [&] {
         Reply(exchange, 200, Dump({{"version", model_.fingerprint}}));
       }},
      {"GET", "/load",
       [&] {
         Reply(exchange, 200, Dump({{"server_load", loop_.pending()}}));
       }},
      {"GET", "/user/balance", [&] { Reply(exchange, 200, BalanceBody()); }},
      {"DELETE", "/cache", [&] { Cache(exchange); }},
      {"GET", "/metrics",
       [&] {
         Reply(exchange, 200, metrics_.Text(loop_.stats(), connections_ ? connections_() : 0),
               "text/plain; version=0.0.4");
       }},
  };
  bool known = false;
  for (const Route& route : routes) {
    if (route.path != path) continue;
    known = true;
    if (route.method != method) continue;
    if (method == "POST" && !IsJsonType(exchange->request())) {
      return ReplyError(exchange, surface,
                        api::ErrorOfStatus(415, "the body must be sent as application/json"));
    }
    return route.answer();
  }
  if (method == "POST" && path.starts_with("/slots/")) {
    return ReplyError(exchange, surface,
                      api::ErrorOfStatus(501,
                                         "slots keep no state of their own here: prefixes are "
                                         "remembered for all requests, see /v1/cache"));
  }
  constexpr std::string_view kModel = "/models/";
  if (method == "GET" && path.starts_with(kModel)) {
    return Models(exchange, path.substr(kModel.size()));
  }
  if (method == "GET") {
    if (const PageFile* file = FindPageFile(path)) {
      http::Response response{.status = 200, .content_type = std::string(file->content_type)};
      response.headers = {{"Content-Security-Policy",
                           "default-src 'none'; script-src 'self'; style-src 'self'; "
                           "connect-src 'self'; img-src 'self' data:; base-uri 'none'"},
                          {"X-Content-Type-Options", "nosniff"}};
      response.body = std::string(file->content);
      metrics_.HttpRequest(200);
      return exchange->Reply(std::move(response));
    }
  }
  const std::string what = StrCat(method, " ", exchange->request().target);
  ReplyError(exchange, surface,
             known ? api::ErrorOfStatus(405, StrCat(what, ": this path has another method"))
                   : api::ErrorOfStatus(404, StrCat(what, ": no such path")));
}

std::optional<http::Response> Service::Admit(const http::Request& request) {
  const std::string_view path = CanonicalPath(request.target);
  const http::Auth auth = options_.keys.Check(request);
  if (IsPublic(path) || auth.allowed()) return std::nullopt;
  const std::string why = auth.result == http::AuthResult::kMissing
                              ? std::string("Authentication Fails, no API key was sent")
                              : StrCat("Authentication Fails, Your api key: ",
                                       http::MaskKey(http::PresentedKey(request)), " is invalid");
  return ErrorResponse(SurfaceOf(path), api::ErrorOfStatus(401, why));
}

kvcache::CacheScope Service::ScopeOf(const http::Request& request, std::string_view user_id) const {
  if (options_.share_cache) return kvcache::CacheScope{0};
  const http::Auth auth = options_.keys.Check(request);
  // By the key itself: the cache on disk outlives the order of the key file.
  return kvcache::CacheScope{http::Sha256Prefix(StrCat(auth.key_id, ":", user_id))};
}

// By default any name will do: agents have names of hosted models built in. [api.md 3]
api::ApiStatus Service::CheckModel(const api::GenerateRequest& request) const {
  if (!options_.strict_model) return {};
  for (const std::string_view known :
       {std::string_view(model_.name), std::string_view("deepseek-chat"),
        std::string_view("deepseek-reasoner")}) {
    if (request.model == known) return {};
  }
  return api::InvalidRequest("model", StrCat("The supported API model names are ", model_.name,
                                             ", but you passed ", request.model, "."));
}

void Service::Generate(api::Surface surface, const ExchangePtr& exchange) {
  if (draining_) {
    return ReplyError(exchange, surface, api::ErrorOfStatus(503, "the server is shutting down"));
  }
  if (loop_.pending() >= options_.max_requests) {
    return ReplyError(exchange, surface,
                      api::ErrorOfStatus(429, StrCat(options_.max_requests,
                                                     " requests are running or waiting, try again "
                                                     "later")));
  }
  auto request = api::ParseRequest(surface, exchange->request().body, {.format = model_.format});
  if (!request.ok()) return ReplyError(exchange, surface, request.error());
  if (const auto known = CheckModel(*request); !known.ok()) {
    return ReplyError(exchange, surface, known.error());
  }
  const kvcache::CacheScope scope = ScopeOf(exchange->request(), request->user_id);
  call_texts_.Replay(scope, request->conversation.messages);
  auto prompts = BuildPrompts(*request, model_, scope, transcripts_);
  if (!prompts.ok()) return ReplyError(exchange, surface, prompts.error());
  auto automaton = constraints_.Compile(*request);
  if (!automaton.ok()) return ReplyError(exchange, surface, automaton.error());
  for (size_t i = 0; i < request->prompts.size() && request->echo; ++i) {
    auto& given = request->prompts[i];
    if (!given.ids.empty()) given.text = model_.tokenizer->Decode(given.ids);
  }
  const ConstraintFactory walk = [this, automaton = *automaton](const auto& asked,
                                                                const Prompt& prompt) {
    return constraints_.Walk(automaton, asked, prompt);
  };
  const auto generation = std::make_shared<Generation>(
      context_, std::move(request).value(), std::move(prompts).value(), scope, walk, exchange);
  if (const auto started = generation->Start(); !started.ok()) {
    return ReplyError(exchange, surface, started.error());
  }
  metrics_.HttpRequest(200);
}

void Service::CountTokens(api::Surface surface, const ExchangePtr& exchange) {
  const std::string& body = exchange->request().body;
  auto request = surface == api::Surface::kMessages
                     ? api::ParseCountTokens(body, {.format = model_.format})
                     : api::ParseResponses(body, {.format = model_.format});
  if (!request.ok()) return ReplyError(exchange, surface, request.error());
  const kvcache::CacheScope scope = ScopeOf(exchange->request(), request->user_id);
  call_texts_.Replay(scope, request->conversation.messages);
  const auto prompts = BuildPrompts(*request, model_, scope, transcripts_);
  if (!prompts.ok()) return ReplyError(exchange, surface, prompts.error());
  Reply(exchange, 200, api::TokenCountBody(surface, prompts->front().ids.size()));
}

void Service::Tokenize(const ExchangePtr& exchange) {
  const auto body = ParseBody(exchange);
  if (!body.ok()) return ReplyError(exchange, api::Surface::kChat, body.error());
  if (body->contains("messages")) return TokenizeChat(exchange);
  const char* field = body->contains("content") ? "content" : "prompt";
  const auto text = body->find(field);
  if (text == body->end() || !text->is_string()) {
    return ReplyError(exchange, api::Surface::kChat,
                      api::InvalidRequest("content", "`content` must be a string"));
  }
  const auto flag = [&](const char* name, bool fallback) {
    const auto value = body->find(name);
    return value != body->end() && value->is_boolean() ? value->get<bool>() : fallback;
  };
  std::vector<uint32_t> ids =
      model_.tokenizer->Encode(text->get<std::string>(), flag("parse_special", true));
  if (flag("add_special", false) && model_.plain_prefix) {
    ids.insert(ids.begin(), *model_.plain_prefix);
  }
  Json tokens = Json::array();
  for (const uint32_t id : ids) {
    if (flag("with_pieces", false)) {
      tokens.push_back({{"id", id}, {"piece", Piece(model_.tokenizer->TokenBytes(id))}});
    } else {
      tokens.push_back(id);
    }
  }
  Reply(exchange, 200,
        Dump({{"tokens", std::move(tokens)},
              {"count", ids.size()},
              {"max_model_len", model_.max_context}}));
}

// vLLM's other form: the ids of a conversation's prompt.
void Service::TokenizeChat(const ExchangePtr& exchange) {
  const auto request = api::ParseChat(exchange->request().body, {.format = model_.format});
  if (!request.ok()) return ReplyError(exchange, api::Surface::kChat, request.error());
  const kvcache::CacheScope scope = ScopeOf(exchange->request(), request->user_id);
  const auto prompts = BuildPrompts(*request, model_, scope, transcripts_);
  if (!prompts.ok()) return ReplyError(exchange, api::Surface::kChat, prompts.error());
  const std::vector<uint32_t>& ids = prompts->front().ids;
  Reply(exchange, 200,
        Dump({{"tokens", ids}, {"count", ids.size()}, {"max_model_len", model_.max_context}}));
}

void Service::Detokenize(const ExchangePtr& exchange) {
  const auto body = ParseBody(exchange);
  if (!body.ok()) return ReplyError(exchange, api::Surface::kChat, body.error());
  const auto tokens = body->find("tokens");
  std::vector<uint32_t> ids;
  bool valid = tokens != body->end() && tokens->is_array();
  for (size_t i = 0; valid && i < tokens->size(); ++i) {
    valid = (*tokens)[i].is_number_unsigned() && (*tokens)[i].get<uint64_t>() < model_.vocab_size;
    if (valid) ids.push_back((*tokens)[i].get<uint32_t>());
  }
  if (!valid) {
    return ReplyError(exchange, api::Surface::kChat,
                      api::InvalidRequest("tokens", StrCat("`tokens` must be a list of ids below ",
                                                           model_.vocab_size)));
  }
  const std::string text = model_.tokenizer->Decode(ids);
  Reply(exchange, 200, Dump({{"content", text}, {"prompt", text}}));
}

void Service::ApplyTemplate(const ExchangePtr& exchange) {
  const auto request = api::ParseChat(exchange->request().body, {.format = model_.format});
  if (!request.ok()) return ReplyError(exchange, api::Surface::kChat, request.error());
  const auto text =
      chat::EncodePrompt(request->conversation, api::EncodeOptionsOf(*request, model_.format));
  if (!text.ok()) {
    return ReplyError(exchange, api::Surface::kChat, api::ApiError::From(text.error()));
  }
  Reply(exchange, 200, Dump({{"prompt", *text}}));
}

void Service::Models(const ExchangePtr& exchange, std::string_view id) {
  if (!id.empty() && id != model_.name) {
    return ReplyError(
        exchange, api::Surface::kChat,
        api::ErrorOfStatus(404, StrCat("no model '", id, "', only '", model_.name, "' is served")));
  }
  Reply(exchange, 200, id.empty() ? ModelListBody(model_) : ModelBody(model_));
}

void Service::Slots(const ExchangePtr& exchange) {
  const engine::EngineStats stats = loop_.stats().engine;
  const bool full = stats.running >= options_.parallel;
  if (full && http::QueryValue(exchange->request().query, "fail_on_no_slot") == "1") {
    return ReplyError(exchange, api::Surface::kChat,
                      api::ErrorOfStatus(503, "all slots are processing"));
  }
  Reply(exchange, 200, SlotsBody(model_, options_.parallel, stats));
}

void Service::Health(const ExchangePtr& exchange) {
  if (draining_) {
    return ReplyError(exchange, api::Surface::kChat,
                      api::ErrorOfStatus(503, "the server is shutting down"));
  }
  Reply(exchange, 200, Dump({{"status", "ok"}}));
}

// GET: what is held; DELETE: forget what the caller's key and ?user_id= may reuse (with
// --cache-scope server: all of it).
void Service::Cache(const ExchangePtr& exchange) {
  if (options_.keys.empty() && exchange->request().method == "DELETE") {
    return ReplyError(exchange, api::Surface::kChat,
                      api::ErrorOfStatus(403, "purging needs a server started with --api-key"));
  }
  if (exchange->request().method == "DELETE") {
    const kvcache::CacheScope scope =
        ScopeOf(exchange->request(), http::QueryValue(exchange->request().query, "user_id"));
    loop_.PurgeCache(scope);
    transcripts_.Purge(scope);
    call_texts_.Purge(scope);
    return Reply(exchange, 200, Dump({{"purged", true}}));
  }
  const engine::EngineStats stats = loop_.stats().engine;
  Json body = {{"kv_memory_bytes", stats.kv_memory_bytes},
               {"reserved_bytes", stats.kv_reserved_bytes},
               {"remembered_bytes", stats.cache.bytes},
               {"checkpoints", stats.cache.checkpoints},
               {"hits", stats.cache.hits},
               {"misses", stats.cache.misses},
               {"evicted", stats.cache.evicted},
               {"reused_tokens", stats.reused_tokens}};
  if (stats.disk) {
    body["disk"] = {{"bytes", stats.disk->bytes},
                    {"max_bytes", stats.disk->max_bytes},
                    {"blocks", stats.disk->blocks},
                    {"states", stats.disk->states},
                    {"queued_bytes", stats.disk->queued_bytes},
                    {"read_bytes", stats.disk->read_bytes},
                    {"written_bytes", stats.disk->written_bytes},
                    {"dropped", stats.disk->dropped},
                    {"evicted", stats.disk->evicted},
                    {"damaged", stats.disk->corrupt},
                    {"reused_tokens", stats.disk_tokens},
                    {"restores", stats.disk_restores},
                    {"restore_seconds", stats.restore_seconds}};
  }
  Reply(exchange, 200, Dump(body));
}

void Service::Reply(const ExchangePtr& exchange, int status, std::string body,
                    std::string content_type) {
  metrics_.HttpRequest(status);
  exchange->Reply({.status = status,
                   .content_type = std::move(content_type),
                   .headers = {},
                   .body = std::move(body)});
}

http::Response Service::ErrorResponse(api::Surface surface, const api::ApiError& error) {
  metrics_.HttpRequest(error.status);
  http::Response response{.status = error.status, .content_type = "application/json"};
  if (error.status == 429 || error.status == 503) response.headers = {{"Retry-After", "2"}};
  response.body = api::ErrorBody(surface, error);
  return response;
}

void Service::ReplyError(const ExchangePtr& exchange, api::Surface surface,
                         const api::ApiError& error) {
  exchange->Reply(ErrorResponse(surface, error));
}

}  // namespace cachalot::serve
