// SPDX-License-Identifier: Apache-2.0
#include "cachalot/http/server.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <exception>
#include <thread>

#include "cachalot/http/connection_internal.h"
#include "cachalot/http/registry_internal.h"
#include "cachalot/http/tls_internal.h"
#include "cachalot/http/worker_pool_internal.h"

namespace cachalot::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// Left for the rest of the process: weight shards, cache files, libraries.
constexpr size_t kReservedFiles = 64;

std::string Address(const std::string& host, uint16_t port) {
  const bool is_v6 = host.find(':') != std::string::npos;
  return is_v6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

}  // namespace

size_t RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;  // POSIX's customary soft limit
  const rlimit raised{.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
  if (setrlimit(RLIMIT_NOFILE, &raised) == 0) return raised.rlim_cur;
  return limit.rlim_cur;
}

Status ServerOptions::Validate() const {
  const auto invalid = [](std::string message) {
    return Error{ErrorCode::kInvalidArgument, std::move(message)};
  };
  if (host.empty()) return invalid("host: empty; expected an address, for example 127.0.0.1");
  if (tls_cert.empty() != tls_key.empty()) {
    return invalid(fmt::format("TLS: a {} without a {}; give both or neither",
                               tls_cert.empty() ? "key" : "certificate",
                               tls_cert.empty() ? "certificate" : "key"));
  }
  if (max_connections == 0 || num_io_threads == 0 || num_worker_threads == 0) {
    return invalid("max_connections, num_io_threads, num_worker_threads: 0; expected at least 1");
  }
  if (max_header_bytes < 1024 || max_header_bytes > (size_t{16} << 20)) {
    return invalid(fmt::format("max_header_bytes: {}; expected 1 KiB to 16 MiB", max_header_bytes));
  }
  return {};
}

struct Server::Impl {
  Impl(ServerOptions server_options, Handler server_handler, Gate server_gate)
      : options(std::move(server_options)),
        handler(std::move(server_handler)),
        gate(std::move(server_gate)),
        cors(options.cors_origins),
        env{.options = options,
            .cors = cors,
            .gate = gate,
            .dispatch =
                [this](std::shared_ptr<Exchange> exchange) {
                  workers->Post([this, exchange = std::move(exchange)] { handler(exchange); });
                },
            .on_closed = [this](Connection* connection) { registry.Remove(connection); }},
        acceptor(asio::make_strand(io)),
        retry(acceptor.get_executor()),
        work(io.get_executor()) {}

  Status Listen();
  void Run();
  void Accept();
  void OnAccept(error_code ec, tcp::socket socket);
  void Stop(std::chrono::milliseconds deadline);

  const ServerOptions options;
  const Handler handler;
  const Gate gate;
  const CorsPolicy cors;
  const ConnectionEnv env;
  std::unique_ptr<asio::ssl::context> tls;
  size_t max_connections = 0;
  uint16_t port = 0;
  Registry registry;
  asio::io_context io;  // below env: connections die with it
  tcp::acceptor acceptor;
  asio::steady_timer retry;
  asio::executor_work_guard<asio::io_context::executor_type> work;
  std::unique_ptr<WorkerPool> workers;
  std::vector<std::thread> io_threads;
  std::mutex stop_mutex;  // held through Stop: a second caller returns when the first is done
  bool stopped = false;
};

Status Server::Impl::Listen() {
  const std::string address = Address(options.host, options.port);
  const auto failed = [&](const char* what, const error_code& ec) {
    return Error{ErrorCode::kIo, fmt::format("{}: cannot {}: {}; choose another host or port",
                                             address, what, ec.message())};
  };
  error_code ec;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(options.host, std::to_string(options.port),
                                      tcp::resolver::passive | tcp::resolver::numeric_service, ec);
  if (ec || found.empty()) return failed("resolve", ec);
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.open(endpoint.protocol(), ec);
  if (ec) return failed("open a socket", ec);
  // A restarted server must not wait for its former connections' TIME_WAIT.
  acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  acceptor.bind(endpoint, ec);
  if (ec) return failed("bind", ec);
  acceptor.listen(asio::socket_base::max_listen_connections, ec);
  if (ec) return failed("listen", ec);
  port = acceptor.local_endpoint(ec).port();
  return {};
}

void Server::Impl::Run() {
  for (;;) {
    try {
      io.run();
      return;
    } catch (const std::exception&) {
      // Out of memory in one connection's step: the others go on.
    }
  }
}

void Server::Impl::Accept() {
  acceptor.async_accept(asio::make_strand(io), [this](const error_code& ec, tcp::socket socket) {
    OnAccept(ec, std::move(socket));
  });
}

void Server::Impl::OnAccept(error_code ec, tcp::socket socket) {
  if (!acceptor.is_open()) return;
  if (ec) {
    // Out of files or memory: trying again at once would spin.
    retry.expires_after(std::chrono::milliseconds(50));
    retry.async_wait([this](const error_code& cancelled) {
      if (!cancelled && acceptor.is_open()) Accept();
    });
    return;
  }
  // Past the limit the socket is just closed: a polite 503 would need the buffers we want to save.
  if (registry.size() < max_connections) {
    const auto connection = NewConnection(std::move(socket), tls.get(), env);
    if (registry.Add(connection)) connection->Start();
  }
  Accept();
}

void Server::Impl::Stop(std::chrono::milliseconds deadline) {
  const std::lock_guard lock(stop_mutex);
  if (std::exchange(stopped, true)) return;
  const auto until = std::chrono::steady_clock::now() + deadline;
  asio::post(acceptor.get_executor(), [this] {
    error_code ignored;
    acceptor.close(ignored);
    retry.cancel();
  });
  for (const auto& connection : registry.StopAdding()) connection->Drain();
  if (!registry.WaitEmpty(until)) {
    for (const auto& connection : registry.All()) connection->Cut();
    registry.WaitEmpty(std::chrono::steady_clock::time_point::max());
  }
  if (workers) workers->Stop();
  io.stop();
  for (std::thread& thread : io_threads) thread.join();
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
// NOLINTNEXTLINE(bugprone-exception-escape): only without memory to post; nothing is left to do
Server::~Server() { Stop(std::chrono::milliseconds(0)); }
uint16_t Server::port() const { return impl_->port; }
size_t Server::max_connections() const { return impl_->max_connections; }
size_t Server::open_connections() const { return impl_->registry.size(); }
void Server::Stop(std::chrono::milliseconds deadline) { impl_->Stop(deadline); }

Result<std::unique_ptr<Server>> Server::Start(ServerOptions options, Handler handler, Gate gate) {
  CACHALOT_RETURN_IF_ERROR(options.Validate());
  const size_t files = RaiseFileLimit();
  auto impl = std::make_unique<Impl>(std::move(options), std::move(handler), std::move(gate));
  impl->max_connections =
      std::min<size_t>(impl->options.max_connections,
                       files > 2 * kReservedFiles ? files - kReservedFiles : files / 2);
  if (!impl->options.tls_cert.empty()) {
    CACHALOT_TRY(impl->tls, LoadTls(impl->options.tls_cert, impl->options.tls_key));
  }
  CACHALOT_RETURN_IF_ERROR(impl->Listen());
  // From here on the Server's destructor ends whatever threads have started.
  std::unique_ptr<Server> server(new Server(std::move(impl)));
  try {
    server->impl_->workers =
        std::make_unique<WorkerPool>(server->impl_->options.num_worker_threads);
    for (uint32_t i = 0; i < server->impl_->options.num_io_threads; ++i) {
      server->impl_->io_threads.emplace_back([run = server->impl_.get()] { run->Run(); });
    }
  } catch (const std::system_error& error) {
    return Error{ErrorCode::kResourceExhausted,
                 fmt::format("HTTP server: cannot start a thread: {}", error.what())};
  }
  asio::post(server->impl_->acceptor.get_executor(),
             [start = server->impl_.get()] { start->Accept(); });
  return server;
}

}  // namespace cachalot::http
