// SPDX-License-Identifier: Apache-2.0
// The connection over a plain or a TLS stream; its definitions are in connection.cc, the only file
// that includes this one. All of it runs on the connection's strand.
#pragma once

#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "cachalot/http/answer_internal.h"
#include "cachalot/http/connection_internal.h"
#include "cachalot/http/framer_internal.h"
#include "cachalot/http/request_reader_internal.h"

namespace cachalot::http {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

inline constexpr Time kNever = Time::max();

enum class Phase : uint8_t {
  kHandshake,
  kIdle,     // nothing of a request has come
  kHeader,   // some of it
  kBody,     // all of the headers
  kRunning,  // the exchange is the handler's
  kLinger,   // all is sent; what comes is discarded until the client closes
  kClosed,
};

template <typename S>
class ConnectionImpl final : public Connection,
                             public std::enable_shared_from_this<ConnectionImpl<S>> {
  static constexpr bool kTls = !std::is_same_v<S, tcp::socket>;

 public:
  template <typename... Args>
  explicit ConnectionImpl(const ConnectionEnv& env, Args&&... stream_args)
      : env_(env), stream_(std::forward<Args>(stream_args)...), timer_(stream_.get_executor()) {}

  void Start() override {
    Post([this] { Begin(); });
  }
  void Drain() override {
    Post([this] { OnDrain(); });
  }
  void Cut() override {
    Post([this] { Close(/*reset=*/false); });
  }

 private:
  using Callback = void (ConnectionImpl::*)(const error_code&, size_t);

  template <typename F>
  void Post(F f) {
    asio::post(stream_.get_executor(), [self = this->shared_from_this(), f] { f(); });
  }
  auto Bind(Callback callback) {
    return [self = this->shared_from_this(), callback](const error_code& ec, size_t n = 0) {
      if (self->phase_ != Phase::kClosed) (self.get()->*callback)(ec, n);
    };
  }

  // Life.
  void Begin();
  void OnHandshake(const error_code& ec, size_t);
  void OnDrain();
  void Linger();
  void Close(bool reset);

  // Reading.
  void Read();
  void OnRead(const error_code& ec, size_t n);
  void Parse();
  void AwaitRequest();
  bool AwaitBody();
  void Reject(int status, std::string_view message);
  void Refuse(Response response, Headers extra);

  // Answering.
  void Dispatch();
  void Pump();
  void FinishAnswer();

  // Writing.
  void Queue(std::string_view bytes);
  void WriteSome();
  void OnWrite(const error_code& ec, size_t n);
  void OnWritten();

  // Time.
  void Arm();
  void OnTimer(const error_code& ec, size_t);
  void OnReadDeadline();
  void Ping(Time now);

  const ConnectionEnv& env_;
  S stream_;
  asio::steady_timer timer_;
  Phase phase_ = Phase::kIdle;
  std::string remote_;

  std::vector<char> read_buffer_;  // of the pending read
  bool reading_ = false;
  std::string in_;  // read, not parsed
  RequestReader reader_;
  bool gate_asked_ = false;  // about the current request

  std::shared_ptr<Answer> answer_;
  Framer framer_;
  bool answer_taken_ = false;   // the answer's last byte is in out_ or written
  bool discard_first_ = false;  // the request was refused before its end
  size_t taken_bytes_ = 0;      // of the stream, in out_

  std::string out_;   // being written
  std::string next_;  // to be written after it
  size_t written_bytes_ = 0;
  bool writing_ = false;
  bool draining_ = false;

  Time read_deadline_ = kNever;
  Time write_deadline_ = kNever;
  Time ping_at_ = kNever;
  Time last_write_ = kNever;
  Time armed_at_ = kNever;
};

}  // namespace cachalot::http
