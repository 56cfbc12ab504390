// SPDX-License-Identifier: Apache-2.0
#include "cachalot/http/exchange.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "cachalot/base/json.h"
#include "cachalot/http/answer_internal.h"
#include "cachalot/http/wire_internal.h"

namespace cachalot::http {
namespace {

std::string PercentDecoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    uint8_t byte = 0;
    const char* digits = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

}  // namespace

std::string QueryValue(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const std::string_view field = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(field.size() + 1, query.size()));
    const size_t equals = std::min(field.find('='), field.size());
    if (PercentDecoded(field.substr(0, equals)) != name) continue;
    return PercentDecoded(field.substr(std::min(equals + 1, field.size())));
  }
  return {};
}

std::string_view Request::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (EqualsIgnoringCase(key, name)) return value;
  }
  return {};
}

Stream::Stream(std::shared_ptr<Answer> answer) : answer_(std::move(answer)) {}
Stream::~Stream() {
  if (answer_) answer_->Abandon();
}
bool Stream::Send(std::string bytes) { return answer_ && answer_->Send(std::move(bytes)); }
void Stream::Close() {
  if (answer_) answer_->Close();
}
bool Stream::gone() const { return !answer_ || answer_->gone(); }

Exchange::Exchange(Request request, std::shared_ptr<Answer> answer)
    : request_(std::move(request)), answer_(std::move(answer)) {}
Exchange::~Exchange() {
  // Ignored if there is an answer.
  answer_->Reply(JsonError(500, "server_error", "the server gave no answer to this request"));
}

void Exchange::Reply(Response response) { answer_->Reply(std::move(response)); }

std::shared_ptr<Stream> Exchange::BeginStream(Response head, std::string keep_alive) {
  const bool begun = answer_->BeginStream(std::move(head), std::move(keep_alive));
  return std::make_shared<Stream>(begun ? answer_ : nullptr);
}

void Exchange::OnDisconnect(std::function<void()> callback) {
  answer_->OnDisconnect(std::move(callback));
}
bool Exchange::gone() const { return answer_->gone(); }

Response JsonError(int status, std::string_view type, std::string_view message) {
  const Json error = {{"message", message}, {"type", type}, {"param", nullptr}, {"code", nullptr}};
  Response response;
  response.status = status;
  response.content_type = "application/json";
  // Replacing bad UTF-8: the default throws.
  response.body = Json{{"error", error}}.dump(-1, ' ', false, Json::error_handler_t::replace);
  return response;
}

}  // namespace cachalot::http
