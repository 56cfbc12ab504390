// SPDX-License-Identifier: Apache-2.0
// The HTTP/1.1 server: sockets, TLS, limits and timeouts. Knows no path and no model; what is
// asked goes to one Handler. Threads, back-pressure and a connection's life: docs/design/http.md.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/http/exchange.h"

namespace cachalot::http {

struct ServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;  // 0: any free one, see Server::port
  std::string tls_cert;  // PEM: certificate and chain; both or neither
  std::string tls_key;   // PEM, without a passphrase
  size_t max_body_bytes = size_t{64} << 20;
  size_t max_header_bytes = size_t{64} << 10;
  std::chrono::milliseconds header_timeout{10'000};  // first byte to end of headers; TLS handshake
  std::chrono::milliseconds body_timeout{300'000};   // end of headers to end of body
  std::chrono::milliseconds idle_timeout{75'000};    // between requests of a connection
  std::chrono::milliseconds write_timeout{30'000};   // a client that takes no byte this long is cut
  std::chrono::milliseconds linger_timeout{2'000};   // for the client's own close, after ours
  std::chrono::milliseconds keep_alive_interval{10'000};  // of silent streams; 0: off
  size_t max_unsent_bytes = size_t{1} << 20;              // of one stream, see Stream::Send
  int socket_send_buffer_bytes =
      0;  // SO_SNDBUF: comes on top of max_unsent; 0: the system's choice
  uint32_t max_connections = 4096;
  uint32_t num_io_threads = 1;
  uint32_t num_worker_threads = 2;        // run the Handler
  std::vector<std::string> cors_origins;  // see CorsPolicy; empty: off

  Status Validate() const;
};

class Server {
 public:
  // Listens and serves when it returns. `gate` may be empty. Raises the file limit
  // (RaiseFileLimit); if it is still too low for max_connections, fewer are taken: compare
  // max_connections() and say so.
  static Result<std::unique_ptr<Server>> Start(ServerOptions options, Handler handler,
                                               Gate gate = {});
  ~Server();  // Stop(0). NOLINT(bugprone-exception-escape): see server.cc

  uint16_t port() const;
  size_t max_connections() const;
  size_t open_connections() const;

  // Accepts no more and closes idle connections; waits until running exchanges have ended or
  // `deadline` has passed, then cuts them (their OnDisconnect runs). Returns when no callback and
  // no handler runs any more, so not to be called from one. Idempotent.
  void Stop(std::chrono::milliseconds deadline);

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Raises the soft limit of open files of this process to the hard one; the soft limit after that.
size_t RaiseFileLimit();

}  // namespace cachalot::http
