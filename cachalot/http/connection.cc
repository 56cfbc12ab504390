// SPDX-License-Identifier: Apache-2.0
// A read is always pending while there is room for what it may bring: before the request's end for
// its bytes, after it to notice at once that the client has gone. Bytes of pipelined requests wait
// in in_.
#include <algorithm>
#include <boost/asio/buffer.hpp>

#include "cachalot/http/connection_impl_internal.h"

namespace cachalot::http {
namespace {

// Read buffers: a request comes in few reads; a connection that only waits costs little, as most
// of a thousand open streams do.
constexpr size_t kReadBytes = 16 << 10;
constexpr size_t kIdleReadBytes = 4 << 10;
constexpr size_t kWatchReadBytes = 512;
// Pipelined bytes kept while an exchange runs; with more, the client's end is only noticed by
// writing.
constexpr size_t kMaxPipelinedBytes = 64 << 10;
// Write buffers above this are freed after use.
constexpr size_t kKeptBytes = 4 << 10;

}  // namespace

template <typename S>
void ConnectionImpl<S>::Begin() {
  error_code ignored;
  auto& socket = stream_.lowest_layer();
  socket.set_option(tcp::no_delay(true), ignored);  // events are small and wanted now
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  if (const int bytes = env_.options.socket_send_buffer_bytes; bytes > 0) {
    socket.set_option(asio::socket_base::send_buffer_size(bytes), ignored);
  }
  const tcp::endpoint remote = socket.remote_endpoint(ignored);
  remote_ = RemoteName(remote.address().is_v6() ? "[" + remote.address().to_string() + "]"
                                                : remote.address().to_string(),
                       remote.port());
  read_deadline_ = Clock::now() + env_.options.header_timeout;
  Arm();
  if constexpr (kTls) {
    phase_ = Phase::kHandshake;
    stream_.async_handshake(S::server, Bind(&ConnectionImpl::OnHandshake));
  } else {
    Read();
  }
}

template <typename S>
void ConnectionImpl<S>::OnHandshake(const error_code& ec, size_t) {
  if (ec) return Close(/*reset=*/false);
  phase_ = Phase::kIdle;
  Read();
}

template <typename S>
void ConnectionImpl<S>::OnDrain() {
  draining_ = true;
  if (phase_ == Phase::kHeader || phase_ == Phase::kBody) {
    return Reject(503, "the server is shutting down");
  }
  if (phase_ == Phase::kIdle || phase_ == Phase::kHandshake) Close(/*reset=*/false);
}

// Closing a socket with unread input makes the system send a reset, which may destroy the answer
// in the client's buffers. So: say we are done, and read on until the client closes.
template <typename S>
void ConnectionImpl<S>::Linger() {
  phase_ = Phase::kLinger;
  in_ = {};
  read_deadline_ = Clock::now() + env_.options.linger_timeout;
  Arm();
  if constexpr (kTls) {
    // Not with input left: data after close_notify is an error to OpenSSL, which would close.
    if (!discard_first_) {
      return stream_.async_shutdown(
          [self = this->shared_from_this()](const error_code&) { self->Close(/*reset=*/false); });
    }
  } else {
    error_code ignored;
    stream_.shutdown(tcp::socket::shutdown_send, ignored);
  }
  Read();
}

template <typename S>
void ConnectionImpl<S>::Close(bool reset) {
  if (std::exchange(phase_, Phase::kClosed) == Phase::kClosed) return;
  error_code ignored;
  auto& socket = stream_.lowest_layer();
  // A slow reader's kernel buffers (megabytes) go at once with a reset, else when it has read them.
  if (reset) socket.set_option(asio::socket_base::linger(true, 0), ignored);
  socket.close(ignored);
  timer_.cancel();
  if (const auto answer = std::exchange(answer_, nullptr)) answer->Disconnect();
  env_.on_closed(this);
}

template <typename S>
void ConnectionImpl<S>::Read() {
  if (reading_ || phase_ == Phase::kClosed) return;
  const size_t bytes = phase_ == Phase::kRunning ? kWatchReadBytes
                       : phase_ == Phase::kIdle  ? kIdleReadBytes
                                                 : kReadBytes;
  if (read_buffer_.size() != bytes) std::vector<char>(bytes).swap(read_buffer_);
  reading_ = true;
  stream_.async_read_some(asio::buffer(read_buffer_), Bind(&ConnectionImpl::OnRead));
}

template <typename S>
void ConnectionImpl<S>::OnRead(const error_code& ec, size_t n) {
  reading_ = false;
  if (ec) {
    // Done sending, it may still read the rest of an answer that is complete here.
    const bool is_flushing = answer_taken_ && writing_;
    framer_.ForbidKeepAlive();
    if (!is_flushing || (ec != asio::error::eof && !kTls)) Close(/*reset=*/false);
    return;
  }
  if (phase_ == Phase::kLinger) return Read();
  in_.append(read_buffer_.data(), n);
  if (phase_ != Phase::kRunning) return Parse();
  if (in_.size() < kMaxPipelinedBytes) Read();
}

template <typename S>
void ConnectionImpl<S>::Parse() {
  if (phase_ == Phase::kIdle) {
    phase_ = Phase::kHeader;
    read_deadline_ = Clock::now() + env_.options.header_timeout;
    gate_asked_ = false;
    reader_.Begin(env_.options.max_header_bytes, env_.options.max_body_bytes);
  }
  const RequestReader::State state = reader_.Feed(&in_);
  if (state == RequestReader::State::kBad) {
    return Reject(reader_.error_status(), reader_.error_message());
  }
  if (state == RequestReader::State::kDone) return Dispatch();
  if (state == RequestReader::State::kBody && phase_ == Phase::kHeader && !AwaitBody()) return;
  Arm();
  Read();
}

// False: the request is refused already.
template <typename S>
bool ConnectionImpl<S>::AwaitBody() {
  phase_ = Phase::kBody;
  read_deadline_ = Clock::now() + env_.options.body_timeout;
  Request head = reader_.Head();
  head.remote = remote_;
  gate_asked_ = true;
  auto refusal = env_.gate ? env_.gate(head) : std::nullopt;
  if (refusal) {
    Refuse(std::move(*refusal), env_.cors.AnswerHeaders(head));
    return false;
  }
  if (reader_.expects_continue()) Queue(kContinue);
  return true;
}

// Waits for the connection's next request; its first bytes may be here already.
template <typename S>
void ConnectionImpl<S>::AwaitRequest() {
  phase_ = Phase::kIdle;
  read_deadline_ = Clock::now() + env_.options.idle_timeout;
  Arm();
  if (!in_.empty()) return Parse();
  in_.shrink_to_fit();
  Read();
}

template <typename S>
void ConnectionImpl<S>::Reject(int status, std::string_view message) {
  Refuse(JsonError(status, status >= 500 ? "server_error" : "invalid_request_error", message), {});
}

// Answers a request that never became an exchange, and closes.
template <typename S>
void ConnectionImpl<S>::Refuse(Response response, Headers extra) {
  phase_ = Phase::kRunning;
  read_deadline_ = kNever;
  discard_first_ = answer_taken_ = true;
  in_ = {};
  framer_.Begin({.keep_alive = false, .extra = std::move(extra)});
  Queue(framer_.Frame({.head = std::move(response), .ended = true}, true));
  Read();
}

template <typename S>
void ConnectionImpl<S>::Dispatch() {
  phase_ = Phase::kRunning;
  read_deadline_ = kNever;
  Framer::For answer_for = {.http_1_0 = reader_.is_http_1_0(), .keep_alive = reader_.keep_alive()};
  Request request = reader_.Finish();
  request.remote = remote_;
  answer_for.is_head = request.method == "HEAD";
  answer_for.extra = env_.cors.AnswerHeaders(request);
  framer_.Begin(std::move(answer_for));
  answer_taken_ = false;
  if (in_.empty()) in_.shrink_to_fit();
  // A producer in here cannot own the last reference: Close and Release wait for it to leave.
  Answer::Wake wake = [weak = this->weak_from_this()] {
    const auto self = weak.lock();
    if (self) self->Post([connection = self.get()] { connection->Pump(); });
  };
  answer_ = std::make_shared<Answer>(env_.options.max_unsent_bytes, std::move(wake));
  auto response = env_.cors.Preflight(request);
  if (!response && !gate_asked_ && env_.gate) response = env_.gate(request);
  auto exchange = std::make_shared<Exchange>(std::move(request), answer_);
  if (response) {
    exchange->Reply(std::move(*response));
  } else {
    env_.dispatch(std::move(exchange));
  }
  Arm();
  Read();
}

// Moves what the answer has ready to the socket.
template <typename S>
void ConnectionImpl<S>::Pump() {
  if (phase_ != Phase::kRunning || !answer_) return;
  if (answer_->cut()) return Close(/*reset=*/true);
  if (writing_ || answer_taken_) return;
  const Answer::Work work = answer_->Take();
  const std::string out = framer_.Frame(work, draining_);
  taken_bytes_ = work.bytes.size();
  answer_taken_ = work.ended;
  const auto interval = env_.options.keep_alive_interval;
  if (!work.keep_alive.empty() && interval.count() > 0) ping_at_ = Clock::now() + interval;
  if (!out.empty()) return Queue(out);
  if (answer_taken_) return FinishAnswer();
  answer_->Wrote(std::exchange(taken_bytes_, 0));  // a HEAD request's stream: dropped
}

template <typename S>
void ConnectionImpl<S>::FinishAnswer() {
  if (const auto answer = std::exchange(answer_, nullptr)) answer->Release();
  answer_taken_ = false;
  ping_at_ = kNever;
  if (!framer_.keep_alive() || draining_) return Linger();
  AwaitRequest();
}

template <typename S>
void ConnectionImpl<S>::Queue(std::string_view bytes) {
  next_ += bytes;
  if (writing_) return;
  writing_ = true;
  out_.swap(next_);
  written_bytes_ = 0;
  WriteSome();
}

template <typename S>
void ConnectionImpl<S>::WriteSome() {
  last_write_ = Clock::now();
  write_deadline_ = last_write_ + env_.options.write_timeout;
  Arm();
  stream_.async_write_some(asio::buffer(out_.data() + written_bytes_, out_.size() - written_bytes_),
                           Bind(&ConnectionImpl::OnWrite));
}

template <typename S>
void ConnectionImpl<S>::OnWrite(const error_code& ec, size_t n) {
  if (ec) return Close(/*reset=*/false);
  written_bytes_ += n;
  if (written_bytes_ < out_.size()) return WriteSome();
  writing_ = false;
  write_deadline_ = kNever;
  out_.clear();
  if (out_.capacity() > kKeptBytes) out_.shrink_to_fit();
  if (!next_.empty()) return Queue({});
  OnWritten();
}

template <typename S>
void ConnectionImpl<S>::OnWritten() {
  if (answer_) answer_->Wrote(std::exchange(taken_bytes_, 0));
  if (answer_taken_) return FinishAnswer();
  Pump();
}

// One timer for all: it wakes at the earliest deadline known when it was set, looks, and is set
// again. Deadlines move with every event, so setting it each time would cost more.
template <typename S>
void ConnectionImpl<S>::Arm() {
  const Time at = std::min({read_deadline_, write_deadline_, ping_at_});
  if (at >= armed_at_ || phase_ == Phase::kClosed) return;
  armed_at_ = at;
  timer_.expires_at(at);
  timer_.async_wait([self = this->shared_from_this()](const error_code& ec) {
    if (self->phase_ != Phase::kClosed) self->OnTimer(ec, 0);
  });
}

template <typename S>
void ConnectionImpl<S>::OnTimer(const error_code& ec, size_t) {
  if (ec) return;  // set anew to an earlier time
  armed_at_ = kNever;
  const Time now = Clock::now();
  if (now >= write_deadline_) return Close(/*reset=*/true);
  if (now >= read_deadline_) OnReadDeadline();
  if (now >= ping_at_) Ping(now);
  Arm();
}

template <typename S>
void ConnectionImpl<S>::OnReadDeadline() {
  if (phase_ == Phase::kHeader) return Reject(408, "the request's headers took too long");
  if (phase_ == Phase::kBody) return Reject(408, "the request's body took too long");
  Close(/*reset=*/false);
}

template <typename S>
void ConnectionImpl<S>::Ping(Time now) {
  const auto interval = env_.options.keep_alive_interval;
  const bool is_due = !writing_ && now - last_write_ >= interval;
  ping_at_ = (is_due || writing_ ? now : last_write_) + interval;
  if (!is_due || answer_taken_) return;
  const std::string out = framer_.KeepAlive();
  if (!out.empty()) Queue(out);
}

std::shared_ptr<Connection> NewConnection(tcp::socket socket, asio::ssl::context* tls,
                                          const ConnectionEnv& env) {
  if (tls == nullptr) {
    return std::make_shared<ConnectionImpl<tcp::socket>>(env, std::move(socket));
  }
  return std::make_shared<ConnectionImpl<asio::ssl::stream<tcp::socket>>>(env, std::move(socket),
                                                                          *tls);
}

}  // namespace cachalot::http
