// SPDX-License-Identifier: Apache-2.0
// For tests: a raw blocking client on loopback, plain or TLS. Every read gives up after ten
// seconds, so that a broken server fails a test instead of hanging it.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

namespace cachalot::http::testing {

struct Answered {
  int status = 0;  // 0: the connection ended before a whole answer
  std::string head;
  std::string body;  // chunks joined

  bool Has(std::string_view header_line) const {
    return head.find("\r\n" + std::string(header_line) + "\r\n") != std::string::npos;
  }
};

class Client {
 public:
  // `receive_buffer_bytes`: SO_RCVBUF, for slow readers; 0: the system's choice.
  explicit Client(uint16_t port, SSL_CTX* tls = nullptr, int receive_buffer_bytes = 0)
      : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    const timeval limit = {.tv_sec = 10, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (receive_buffer_bytes > 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    if (tls == nullptr) return;
    ssl_ = SSL_new(tls);
    SSL_set_fd(ssl_, fd_);
    connected_ = connected_ && SSL_connect(ssl_) == 1;
  }
  ~Client() { Close(); }
  Client(Client&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)),
        ssl_(std::exchange(other.ssl_, nullptr)),
        connected_(other.connected_),
        in_(std::move(other.in_)) {}
  Client& operator=(Client&&) = delete;

  bool connected() const { return connected_; }

  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const int size = static_cast<int>(bytes.size());
      const ssize_t n = ssl_ != nullptr ? SSL_write(ssl_, bytes.data(), size)
                                        : send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  // Reads until `mark` has come; what is up to and with it. Empty: the connection ended first.
  std::string ReadUntil(std::string_view mark) {
    size_t at;
    while ((at = in_.find(mark)) == std::string::npos) {
      if (!Receive()) return {};
    }
    return Cut(at + mark.size());
  }

  Answered ReadAnswer(bool has_body = true) {
    Answered out;
    out.head = ReadUntil("\r\n\r\n");
    if (out.head.empty()) return out;
    const int status = std::atoi(out.head.c_str() + std::string_view("HTTP/1.1 ").size());
    const size_t length = out.head.find("Content-Length: ");
    bool whole = true;
    if (has_body && out.Has("Transfer-Encoding: chunked")) {
      whole = ReadChunks(&out.body);
    } else if (has_body && length != std::string::npos) {
      const auto size = std::strtoul(out.head.c_str() + length + 16, nullptr, 10);
      while (in_.size() < size && (whole = Receive())) {
      }
      if (whole) out.body = Cut(size);
    }
    out.status = whole ? status : 0;
    return out;
  }

  // The next chunk of a chunked answer; empty: its end (or the connection's).
  std::string ReadChunk() {
    const std::string line = ReadUntil("\r\n");
    const auto size = std::strtoul(line.c_str(), nullptr, 16);
    while (in_.size() < size + 2) {
      if (!Receive()) return {};
    }
    std::string chunk = Cut(size + 2);
    chunk.resize(size);
    return chunk;
  }

  // All that comes until the server closes. `clean`: it closed rather than reset or fell silent.
  std::string ReadToEnd(bool* clean = nullptr) {
    while (Receive()) {
    }
    if (clean != nullptr) *clean = last_ == 0;
    return std::exchange(in_, {});
  }

  void ShutdownSend() { shutdown(fd_, SHUT_WR); }

  // The connection vanishes with a reset.
  void Reset() {
    const linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    Close();
  }

  void Close() {
    if (ssl_ != nullptr) SSL_free(std::exchange(ssl_, nullptr));
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  bool Receive() {
    char buffer[16384];
    last_ = ssl_ != nullptr ? SSL_read(ssl_, buffer, sizeof buffer)
                            : recv(fd_, buffer, sizeof buffer, 0);
    if (last_ > 0) in_.append(buffer, static_cast<size_t>(last_));
    return last_ > 0;
  }

  bool ReadChunks(std::string* body) {
    for (;;) {
      const std::string line = ReadUntil("\r\n");
      if (line.empty()) return false;
      const auto size = std::strtoul(line.c_str(), nullptr, 16);
      while (in_.size() < size + 2) {
        if (!Receive()) return false;
      }
      *body += Cut(size + 2).substr(0, size);
      if (size == 0) return true;
    }
  }

  std::string Cut(size_t size) {
    std::string out = in_.substr(0, size);
    in_.erase(0, size);
    return out;
  }

  int fd_;
  SSL* ssl_ = nullptr;
  bool connected_ = false;
  ssize_t last_ = 1;
  std::string in_;
};

inline std::string Get(std::string_view target, std::string_view headers = {}) {
  return "GET " + std::string(target) + " HTTP/1.1\r\nHost: x\r\n" + std::string(headers) + "\r\n";
}

inline std::string PostBody(std::string_view target, std::string_view body) {
  return "POST " + std::string(target) +
         " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}

}  // namespace cachalot::http::testing
