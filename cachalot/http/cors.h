// SPDX-License-Identifier: Apache-2.0
// Cross-origin requests: off unless origins are given. Never allows credentials (cookies): the API
// key travels in a header that a page must know.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cachalot/http/exchange.h"

namespace cachalot::http {

class CorsPolicy {
 public:
  // Each is "*", "localhost" (any scheme and port of localhost, 127.0.0.1 and [::1]) or an origin
  // as browsers send it: "https://example.org:8443".
  explicit CorsPolicy(std::vector<std::string> origins);

  // The answer to a preflight (OPTIONS with Origin and Access-Control-Request-Method); nullopt:
  // not one, or CORS is off. An origin not allowed gets the answer without the headers, which the
  // browser takes for a no.
  std::optional<Response> Preflight(const Request& request) const;

  // What every answer to this request carries besides.
  Headers AnswerHeaders(const Request& request) const;

 private:
  bool Allows(std::string_view origin) const;

  std::vector<std::string> origins_;
  bool any_ = false;
};

}  // namespace cachalot::http
