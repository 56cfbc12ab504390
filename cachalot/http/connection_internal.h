// SPDX-License-Identifier: Apache-2.0
// One client connection, plain or TLS behind one interface, and what it needs of its server.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <functional>
#include <memory>

#include "cachalot/http/cors.h"
#include "cachalot/http/server.h"

namespace cachalot::http {

class Connection {
 public:
  virtual ~Connection() = default;
  virtual void Start() = 0;
  virtual void Drain() = 0;  // close when idle, or after the running exchange
  virtual void Cut() = 0;    // close now
};

// Outlives every connection.
struct ConnectionEnv {
  const ServerOptions& options;
  const CorsPolicy& cors;
  const Gate& gate;                                         // may be empty
  std::function<void(std::shared_ptr<Exchange>)> dispatch;  // to a worker
  std::function<void(Connection*)> on_closed;               // once, on an I/O thread
};

// `socket`'s executor must be a strand. `tls`: null for plain HTTP.
std::shared_ptr<Connection> NewConnection(boost::asio::ip::tcp::socket socket,
                                          boost::asio::ssl::context* tls, const ConnectionEnv& env);

}  // namespace cachalot::http
