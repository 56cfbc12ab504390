// SPDX-License-Identifier: Apache-2.0
// One HTTP request and its one answer, as the server hands them to a Handler. The answer is either
// whole (Reply) or streamed (BeginStream); both may come later and from any thread. All classes
// are thread-safe and outlive their connection: once the client is gone, what is sent is dropped.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cachalot::http {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Request {
  std::string method;  // as sent: "GET"
  std::string target;  // the path as sent, not percent-decoded, without the query
  std::string query;   // what follows '?', without it
  std::string body;
  std::string remote;  // "127.0.0.1:51234"
  Headers headers;     // in the order sent

  // The first header of this name in any case; empty if there is none.
  std::string_view Header(std::string_view name) const;
};

// The first value of `name` in a query ("a=1&b=2"), percent-decoded, '+' as a space; empty if there
// is none. A '%' that two hex digits do not follow stands for itself.
std::string QueryValue(std::string_view query, std::string_view name);

// Content-Length, Date, Connection, Transfer-Encoding and CORS headers are the server's.
struct Response {
  int status = 200;
  std::string content_type;  // empty: no Content-Type header
  Headers headers;           // control characters in a value are sent as spaces
  std::string body;
};

class Answer;  // answer_internal.h: what an exchange and its connection share

// An open streamed answer. Destroyed without Close, it cuts the connection, so that the client
// cannot take half an answer for a whole one.
class Stream {
 public:
  explicit Stream(std::shared_ptr<Answer> answer);  // by Exchange only
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Queues bytes; what is queued together is sent together, as one chunk. False: the stream is
  // closed or the client gone, and the producer should stop. A client too slow to read is dropped
  // here: when bytes wait and these would make them more than ServerOptions::max_unsent_bytes.
  bool Send(std::string bytes);
  // The answer ends after the bytes queued so far; a keep-alive connection goes on.
  void Close();
  // No byte will reach the client any more.
  bool gone() const;

 private:
  std::shared_ptr<Answer> answer_;
};

// Destroyed unanswered, it answers 500.
class Exchange {
 public:
  Exchange(Request request, std::shared_ptr<Answer> answer);  // by the server only
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  const Request& request() const { return request_; }
  // Moves the body out, so that a long answer does not hold megabytes of prompt. Not while another
  // thread reads request().
  std::string TakeBody() { return std::move(request_.body); }

  // The first of Reply and BeginStream is the answer; later ones are ignored (a later stream is
  // gone from the start).
  void Reply(Response response);

  // Starts a chunked answer (HTTP/1.0: one that ends with the connection); `head.body` is its first
  // bytes. `keep_alive` is sent whenever nothing was for ServerOptions::keep_alive_interval; empty:
  // never. The exchange, and with it the request, may be dropped while the stream goes on.
  std::shared_ptr<Stream> BeginStream(Response head, std::string keep_alive);

  // `callback` runs once if the client goes away (or is dropped, or cut by Server::Stop) before
  // Reply or Stream::Close: on an I/O thread, so it must be quick; at once, in the calling thread,
  // if that has happened already. It is destroyed when the answer ends. One callback: the last set.
  void OnDisconnect(std::function<void()> callback);
  bool gone() const;

 private:
  Request request_;
  std::shared_ptr<Answer> answer_;
};

// Runs on a worker thread. It holds up the requests behind it, so it should hand long work on and
// return. An exception ends the exchange with a 500.
using Handler = std::function<void(std::shared_ptr<Exchange>)>;

// Asked once for each request when its headers are there, before the rest of its body is read and
// the Handler runs; a Response refuses it. So a client without a key cannot make the server hold
// its body. `body` may be there or not. Runs on an I/O thread: must be quick, must not throw.
using Gate = std::function<std::optional<Response>(const Request&)>;

// {"error":{"message":..,"type":..,"param":null,"code":null}}, the shape OpenAI clients read; the
// transport's own errors look like this. `message` and `type`: any UTF-8.
Response JsonError(int status, std::string_view type, std::string_view message);

}  // namespace cachalot::http
