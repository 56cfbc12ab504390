// SPDX-License-Identifier: Apache-2.0
// The bytes of an answer: status line and headers, chunk framing. (Requests are parsed by Beast.)
#pragma once

#include <string>
#include <string_view>

#include "cachalot/http/exchange.h"

namespace cachalot::http {

bool EqualsIgnoringCase(std::string_view a, std::string_view b);  // ASCII

// How a response is framed on its connection.
struct Framing {
  bool http_1_0 = false;
  bool keep_alive = true;
  bool chunked = false;          // else Content-Length, unless close_delimited
  bool close_delimited = false;  // a stream to an HTTP/1.0 client
};

// Status line and headers, with the empty line. `extra` (CORS) follows the response's own headers.
std::string ResponseHead(const Response& response, const Framing& framing, const Headers& extra);

// True for answers that have no body by definition (1xx, 204, 304).
bool HasNoBody(int status);

// Appends `bytes` as one chunk; nothing if empty, since an empty chunk ends the body.
void AppendChunk(std::string_view bytes, std::string* out);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";
inline constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

}  // namespace cachalot::http
