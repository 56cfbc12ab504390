// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/string_body.hpp>
#include <new>

#include "cachalot/http/request_reader_internal.h"
#include "cachalot/http/wire_internal.h"

namespace cachalot::http {
namespace {

namespace beast = boost::beast;
using BeastError = beast::http::error;

struct Refusal {
  int status = 0;  // 0: none
  std::string_view message;
};

Refusal RefusalOf(const boost::system::error_code& ec) {
  if (ec == BeastError::header_limit || ec == BeastError::buffer_overflow) {
    return {431, "the request's headers are larger than this server accepts"};
  }
  if (ec == BeastError::body_limit) {
    return {413, "the request's body is larger than this server accepts"};
  }
  if (ec == BeastError::bad_version) return {505, "expected HTTP/1.1 or HTTP/1.0"};
  if (ec == BeastError::bad_method) return {400, "malformed request: bad method"};
  if (ec == BeastError::bad_target) return {400, "malformed request: bad target"};
  if (ec == BeastError::bad_field) return {400, "malformed request: bad header name"};
  if (ec == BeastError::bad_value) return {400, "malformed request: bad header value"};
  if (ec == BeastError::bad_content_length || ec == BeastError::multiple_content_length) {
    return {400, "malformed request: bad Content-Length"};
  }
  if (ec == BeastError::bad_transfer_encoding) {
    return {400, "malformed request: bad Transfer-Encoding"};
  }
  if (ec == BeastError::bad_chunk || ec == BeastError::bad_chunk_extension) {
    return {400, "malformed request: bad chunk"};
  }
  return {400, "malformed request"};
}

// "/v1/x?a=b" or, from proxies, "http://host/v1/x?a=b".
void SplitTarget(std::string_view target, Request* out) {
  if (const size_t scheme = target.find("://"); scheme != target.npos && target.front() != '/') {
    const size_t path = target.find_first_of("/?", scheme + 3);
    target = path == target.npos ? "/" : target.substr(path);
  }
  target = target.substr(0, target.find('#'));
  const size_t mark = target.find('?');
  out->target = target.substr(0, mark);
  if (mark != target.npos) out->query = target.substr(mark + 1);
}

std::string_view View(beast::string_view text) { return {text.data(), text.size()}; }

// What Beast lets pass: a missing or second Host [RFC 9112 3.2], and codings we would read as no
// body at all, taking the body for the next request [RFC 9112 6.1].
Refusal CheckHead(const beast::http::request<beast::http::string_body>& message) {
  if (message.version() >= 11 && message.count(beast::http::field::host) != 1) {
    return {400, "malformed request: expected one Host header"};
  }
  const auto coding = message.find(beast::http::field::transfer_encoding);
  if (coding != message.end() && !EqualsIgnoringCase(View(coding->value()), "chunked")) {
    return {501, "Transfer-Encoding: expected chunked"};
  }
  return {};
}

}  // namespace

struct RequestReader::Parser {
  beast::http::request_parser<beast::http::string_body> beast;
};

RequestReader::RequestReader() = default;
RequestReader::~RequestReader() = default;

void RequestReader::Begin(size_t max_header_bytes, size_t max_body_bytes) {
  parser_ = std::make_unique<Parser>();
  parser_->beast.header_limit(static_cast<uint32_t>(max_header_bytes));
  parser_->beast.body_limit(max_body_bytes);
  parser_->beast.eager(true);
}

RequestReader::State RequestReader::Feed(std::string* in) {
  auto& parser = parser_->beast;
  boost::system::error_code ec;
  try {
    while (!in->empty() && !parser.is_done() && !ec) {
      in->erase(0, parser.put(boost::asio::const_buffer(in->data(), in->size()), ec));
    }
  } catch (const std::bad_alloc&) {
    error_status_ = 503;
    error_message_ = "no memory for the request's body; try again later";
    return State::kBad;
  }
  const bool failed = ec && ec != BeastError::need_more;
  const Refusal refusal = failed                    ? RefusalOf(ec)
                          : parser.is_header_done() ? CheckHead(parser.get())
                                                    : Refusal{};
  if (refusal.status != 0) {
    error_status_ = refusal.status;
    error_message_ = refusal.message;
    return State::kBad;
  }
  if (parser.is_done()) return State::kDone;
  return parser.is_header_done() ? State::kBody : State::kHeader;
}

bool RequestReader::expects_continue() const {
  const auto& message = parser_->beast.get();
  return message.version() >= 11 &&
         EqualsIgnoringCase(View(message[beast::http::field::expect]), "100-continue");
}
bool RequestReader::is_http_1_0() const { return parser_->beast.get().version() < 11; }
bool RequestReader::keep_alive() const { return parser_->beast.get().keep_alive(); }

Request RequestReader::Head() const {
  const auto& message = parser_->beast.get();
  Request request;
  request.method = View(message.method_string());
  SplitTarget(View(message.target()), &request);
  for (const auto& field : message) {
    request.headers.emplace_back(View(field.name_string()), View(field.value()));
  }
  return request;
}

Request RequestReader::Finish() {
  Request request = Head();
  request.body = std::move(parser_->beast.get().body());
  parser_ = nullptr;
  return request;
}

std::string RemoteName(std::string_view address, uint16_t port) {
  return fmt::format("{}:{}", address, port);
}

}  // namespace cachalot::http
