// SPDX-License-Identifier: Apache-2.0
#include "cachalot/http/framer_internal.h"

namespace cachalot::http {

void Framer::Begin(For request) {
  is_head_ = request.is_head;
  framing_ = {.http_1_0 = request.http_1_0, .keep_alive = request.keep_alive};
  extra_ = std::move(request.extra);
  keep_alive_.clear();
}

std::string Framer::Frame(const Answer::Work& work, bool must_close) {
  std::string out = work.head ? Head(work, must_close) : std::string();
  AppendBytes(work.bytes, &out);
  if (work.ended && framing_.chunked && !is_head_) out += kLastChunk;
  return out;
}

std::string Framer::KeepAlive() const {
  std::string out;
  AppendBytes(keep_alive_, &out);
  return out;
}

std::string Framer::Head(const Answer::Work& work, bool must_close) {
  framing_.chunked = work.is_stream && !framing_.http_1_0;
  framing_.close_delimited = work.is_stream && framing_.http_1_0;
  framing_.keep_alive = framing_.keep_alive && !framing_.close_delimited && !must_close;
  keep_alive_ = work.keep_alive;
  std::string out = ResponseHead(*work.head, framing_, extra_);
  if (!is_head_ && !HasNoBody(work.head->status)) out += work.head->body;
  return out;
}

void Framer::AppendBytes(std::string_view bytes, std::string* out) const {
  if (is_head_) return;
  if (framing_.chunked) return AppendChunk(bytes, out);
  out->append(bytes);
}

}  // namespace cachalot::http
