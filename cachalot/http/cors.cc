// SPDX-License-Identifier: Apache-2.0
#include "cachalot/http/cors.h"

#include <algorithm>

#include "cachalot/http/wire_internal.h"

namespace cachalot::http {
namespace {

// "http://localhost:3000" and the like. The host must end the origin or be followed by a port:
// "http://localhost.evil.example" is somebody else.
bool IsLocal(std::string_view origin) {
  const size_t scheme_end = origin.find("://");
  if (scheme_end == std::string_view::npos) return false;
  const std::string_view host = origin.substr(scheme_end + 3);
  for (const std::string_view local : {"localhost", "127.0.0.1", "[::1]"}) {
    if (!host.starts_with(local)) continue;
    const std::string_view rest = host.substr(local.size());
    if (rest.empty() || rest.front() == ':') return true;
  }
  return false;
}

}  // namespace

CorsPolicy::CorsPolicy(std::vector<std::string> origins)
    : origins_(std::move(origins)),
      any_(std::find(origins_.begin(), origins_.end(), "*") != origins_.end()) {}

bool CorsPolicy::Allows(std::string_view origin) const {
  return any_ || std::any_of(origins_.begin(), origins_.end(), [&](const std::string& allowed) {
           return allowed == "localhost" ? IsLocal(origin) : EqualsIgnoringCase(allowed, origin);
         });
}

Headers CorsPolicy::AnswerHeaders(const Request& request) const {
  if (origins_.empty()) return {};
  if (any_) return {{"Access-Control-Allow-Origin", "*"}};
  // Vary also without an Origin: a cache must not give that answer to a page.
  Headers headers = {{"Vary", "Origin"}};
  const std::string_view origin = request.Header("Origin");
  if (!origin.empty() && Allows(origin)) {
    headers.emplace_back("Access-Control-Allow-Origin", origin);
  }
  return headers;
}

std::optional<Response> CorsPolicy::Preflight(const Request& request) const {
  const std::string_view origin = request.Header("Origin");
  if (origins_.empty() || request.method != "OPTIONS" || origin.empty() ||
      request.Header("Access-Control-Request-Method").empty()) {
    return std::nullopt;
  }
  Response response;
  response.status = 204;
  if (!Allows(origin)) return response;
  // Echoing what is asked for covers x-stainless-* and anthropic-*, which "*" does not when the
  // list also holds Authorization.
  const std::string_view asked = request.Header("Access-Control-Request-Headers");
  response.headers = {
      {"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
      {"Access-Control-Allow-Headers",
       asked.empty() ? "Authorization, Content-Type, x-api-key" : std::string(asked)},
      {"Access-Control-Max-Age", "86400"},
  };
  return response;
}

}  // namespace cachalot::http
