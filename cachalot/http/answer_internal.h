// SPDX-License-Identifier: Apache-2.0
// The answer in progress, between its producers (any thread) and its connection (on its strand).
// Knows no sockets: the connection is reached through a Wake that posts to it.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "cachalot/http/exchange.h"

namespace cachalot::http {

class Answer {
 public:
  // Asks the connection to Take soon. Called with the lock held, so that after Disconnect or
  // Release nobody is inside it and the I/O context may be destroyed: it must only post.
  using Wake = std::function<void()>;

  Answer(size_t max_unsent_bytes, Wake wake);

  // Producers; see Exchange and Stream.
  void Reply(Response response);
  bool BeginStream(Response head, std::string keep_alive);
  bool Send(std::string bytes);
  void Close();
  void Abandon();  // cuts the connection unless the answer is complete
  bool gone() const;
  void OnDisconnect(std::function<void()> callback);

  // The connection.
  struct Work {
    std::optional<Response> head;  // the first time; its body belongs to a whole answer
    bool is_stream = false;
    std::string keep_alive;  // with a stream's head
    std::string bytes;       // of a stream
    bool ended = false;      // nothing follows
  };
  Work Take();
  void Wrote(size_t bytes);  // of Work::bytes, accepted by the system
  bool cut() const;          // the connection is to be reset
  void Disconnect();         // the client is gone: runs the callback
  void Release();            // all is written: forgets the connection

 private:
  void WakeLocked();

  mutable std::mutex mutex_;  // guards all below
  const size_t max_unsent_bytes_;
  Wake wake_;
  bool wake_pending_ = false;
  std::optional<Response> head_;
  std::string keep_alive_;
  std::string pending_;      // not yet taken
  size_t unsent_bytes_ = 0;  // taken or not, not yet written
  bool answered_ = false;
  bool is_stream_ = false;
  bool ended_ = false;
  bool cut_ = false;
  bool gone_ = false;
  std::function<void()> on_disconnect_;
};

}  // namespace cachalot::http
