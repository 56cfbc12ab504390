// SPDX-License-Identifier: Apache-2.0
// Streamed answers: framing, back-pressure, disconnects, keep-alives, shutdown, many at once.
#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "cachalot/http/test_server.h"

namespace cachalot::http {
namespace {

using std::chrono::milliseconds;
using testing::Answered;
using testing::Client;
using testing::Event;
using testing::Get;
using testing::TestServer;

// One open stream: asked for by `client`, written by `stream`.
struct Open {
  Client client;
  std::shared_ptr<Stream> stream;
};

Open OpenStream(TestServer* test, std::string keep_alive = {}, int receive_buffer_bytes = 0) {
  Open open{Client(test->port(), nullptr, receive_buffer_bytes), nullptr};
  open.client.Send(Get("/stream"));
  if (const auto exchange = test->Next()) {
    open.stream = exchange->BeginStream({.content_type = "text/event-stream; charset=utf-8"},
                                        std::move(keep_alive));
  }
  return open;
}

TEST(QueryValue, IsDecodedAndTheFirstOfItsName) {
  EXPECT_EQ(QueryValue("a=1&b=2&a=3", "a"), "1");
  EXPECT_EQ(QueryValue("a=1&b=2", "b"), "2");
  EXPECT_EQ(QueryValue("a=x%3Ay+z%2b", "a"), "x:y z+");
  EXPECT_EQ(QueryValue("%61=1", "a"), "1");
  EXPECT_EQ(QueryValue("a=50%&b", "a"), "50%");
  EXPECT_EQ(QueryValue("a=%zz%4", "a"), "%zz%4");
  EXPECT_EQ(QueryValue("a==1", "a"), "=1");
  for (const char* none : {"", "b", "aa=1", "&&", "=1", "a", "a="}) {
    EXPECT_EQ(QueryValue(none, "a"), "") << none;
  }
}

TEST(Stream, SendsChunksAsTheyComeAndKeepsTheConnection) {
  TestServer test;
  Open open = OpenStream(&test);
  ASSERT_TRUE(open.stream);
  const std::string head = open.client.ReadUntil("\r\n\r\n");
  EXPECT_NE(head.find("Content-Type: text/event-stream; charset=utf-8\r\n"), std::string::npos);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(open.stream->Send("data: " + std::to_string(i) + "\n\n"));
    EXPECT_EQ(open.client.ReadChunk(), "data: " + std::to_string(i) + "\n\n");
  }
  open.stream->Close();
  EXPECT_FALSE(open.stream->Send("late"));
  EXPECT_EQ(open.client.ReadChunk(), "");
  open.client.Send(Get("/where"));
  EXPECT_EQ(open.client.ReadAnswer().body, "/where?");
}

TEST(Stream, OutlivesItsExchangeAndFramesTheFirstBytes) {
  TestServer test;
  Client client(test.port());
  client.Send(Get("/stream") + Get("/where"));
  auto exchange = test.Next();
  ASSERT_TRUE(exchange);
  const auto stream = exchange->BeginStream({.body = "first "}, {});
  exchange->Reply({.body = "ignored"});
  EXPECT_TRUE(exchange->BeginStream({}, {})->gone());
  exchange = nullptr;
  stream->Send("second");
  stream->Close();
  EXPECT_EQ(client.ReadAnswer().body, "first second");
  EXPECT_EQ(client.ReadAnswer().body, "/where?");
}

TEST(Stream, EndsWithTheConnectionForHttp10) {
  TestServer test;
  Client client(test.port());
  client.Send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const auto stream = test.Next()->BeginStream({}, {});
  stream->Send("all of it");
  stream->Close();
  const Answered answer = client.ReadAnswer();
  EXPECT_EQ(answer.head.find("chunked"), std::string::npos);
  bool clean = false;
  EXPECT_EQ(client.ReadToEnd(&clean), "all of it");
  EXPECT_TRUE(clean);
}

TEST(Stream, SendsNoBodyForHead) {
  TestServer test;
  Client client(test.port());
  client.Send("HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto stream = test.Next()->BeginStream({}, {});
  stream->Send("dropped");
  stream->Close();
  EXPECT_EQ(client.ReadAnswer(/*has_body=*/false).status, 200);
  client.Send(Get("/where"));
  EXPECT_EQ(client.ReadAnswer().body, "/where?");
}

TEST(Stream, CutsTheConnectionIfDroppedUnfinished) {
  TestServer test;
  Open open = OpenStream(&test);
  ASSERT_TRUE(open.stream);
  open.stream->Send("half");
  EXPECT_EQ(open.client.ReadUntil("half\r\n").substr(0, 12), "HTTP/1.1 200");
  open.stream = nullptr;
  EXPECT_EQ(open.client.ReadToEnd().find("0\r\n\r\n"), std::string::npos);
}

TEST(Stream, DropsASlowReaderAndNoOther) {
  TestServer test({.max_unsent_bytes = 64 << 10, .socket_send_buffer_bytes = 16 << 10});
  Open slow = OpenStream(&test, {}, 4 << 10);
  Open other = OpenStream(&test);
  ASSERT_TRUE(slow.stream && other.stream);
  Event gone;
  size_t sent = 0;
  const std::string message(1000, 'x');
  while (slow.stream->Send(message) && sent < (64u << 20)) sent += message.size();
  EXPECT_TRUE(slow.stream->gone());
  EXPECT_GE(sent, 64'000u);
  EXPECT_LT(sent, 8u << 20);  // max_unsent and what the two kernels buffer
  other.stream->Send("fine");
  other.stream->Close();
  EXPECT_EQ(other.client.ReadAnswer().body, "fine");
  bool clean = true;
  slow.client.ReadToEnd(&clean);
  EXPECT_FALSE(clean);
}

TEST(Stream, PassesOneMessageOfAnySize) {
  TestServer test({.max_unsent_bytes = 1000});
  Open open = OpenStream(&test);
  ASSERT_TRUE(open.stream);
  // The head alone waits for nobody: only stream bytes count.
  EXPECT_TRUE(open.stream->Send(std::string(5'000'000, 'x')));
  open.stream->Close();
  EXPECT_EQ(open.client.ReadAnswer().body.size(), 5'000'000u);
}

TEST(Stream, DropsAClientThatTakesNothing) {
  TestServer test({.write_timeout = milliseconds(50), .socket_send_buffer_bytes = 16 << 10});
  Client client(test.port(), nullptr, 4 << 10);
  client.Send(Get("/whole"));
  const auto exchange = test.Next();
  ASSERT_TRUE(exchange);
  exchange->Reply({.body = std::string(32 << 20, 'x')});
  bool clean = true;
  // Reads only when the server has let go.
  for (int i = 0; i < 1000 && test.server().open_connections() > 0; ++i) usleep(5000);
  EXPECT_EQ(test.server().open_connections(), 0u);
  client.ReadToEnd(&clean);
  EXPECT_FALSE(clean);
}

class Disconnect : public ::testing::TestWithParam<bool> {};  // by reset, else by closing

TEST_P(Disconnect, IsNoticedWhileStreaming) {
  TestServer test;
  Client client(test.port());
  client.Send(Get("/stream"));
  const auto exchange = test.Next();
  ASSERT_TRUE(exchange);
  Event gone;
  exchange->OnDisconnect([&] { gone.Set(); });
  const auto stream = exchange->BeginStream({}, {});
  stream->Send("x");
  EXPECT_NE(client.ReadUntil("x\r\n"), "");
  GetParam() ? client.Reset() : client.Close();
  ASSERT_TRUE(gone.Wait());
  EXPECT_TRUE(stream->gone());
  EXPECT_FALSE(stream->Send("y"));
  Event late;
  exchange->OnDisconnect([&] { late.Set(); });
  EXPECT_EQ(late.count(), 1) << "set after the fact: at once";
}

TEST_P(Disconnect, IsNoticedBeforeTheAnswerAndBehindPipelinedBytes) {
  TestServer test;
  Client client(test.port());
  client.Send(Get("/slow") + Get("/where"));
  const auto exchange = test.Next();
  ASSERT_TRUE(exchange);
  Event gone;
  exchange->OnDisconnect([&] { gone.Set(); });
  GetParam() ? client.Reset() : client.Close();
  ASSERT_TRUE(gone.Wait());
  EXPECT_TRUE(exchange->gone());
  exchange->Reply({.body = "to nobody"});
  EXPECT_EQ(gone.count(), 1);
}

INSTANTIATE_TEST_SUITE_P(ByResetOrClose, Disconnect, ::testing::Bool());

TEST(Stream, ForgetsTheCallbackWhenAnswered) {
  TestServer test;
  Client client(test.port());
  client.Send(Get("/slow"));
  const auto exchange = test.Next();
  ASSERT_TRUE(exchange);
  Event gone;
  const auto token = std::make_shared<int>(0);
  exchange->OnDisconnect([&, token] { gone.Set(); });
  EXPECT_EQ(token.use_count(), 2);
  exchange->Reply({.body = "done"});
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_EQ(client.ReadAnswer().body, "done");
  client.Close();
  test.Destroy();
  EXPECT_EQ(gone.count(), 0);
}

TEST(Stream, SendsKeepAlivesOnlyWhileSilent) {
  TestServer test({.keep_alive_interval = milliseconds(20)});
  Open open = OpenStream(&test, ": keep-alive\n\n");
  ASSERT_TRUE(open.stream);
  open.client.ReadUntil("\r\n\r\n");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(open.client.ReadChunk(), ": keep-alive\n\n");
  open.stream->Send("data: 1\n\n");
  open.stream->Close();
  std::string chunk;
  while ((chunk = open.client.ReadChunk()) == ": keep-alive\n\n") {
  }
  EXPECT_EQ(chunk, "data: 1\n\n");
  EXPECT_EQ(open.client.ReadChunk(), "");
  open.client.Send(Get("/where"));
  EXPECT_EQ(open.client.ReadAnswer().body, "/where?") << "no keep-alive after the end";
}

TEST(Stop, WaitsForARunningStreamAndClosesIdleConnections) {
  TestServer test;
  Open open = OpenStream(&test);
  ASSERT_TRUE(open.stream);
  Client idle(test.port());
  idle.Send(Get("/where"));
  EXPECT_EQ(idle.ReadAnswer().status, 200);
  std::thread stopping([&] { test.server().Stop(std::chrono::seconds(10)); });
  EXPECT_EQ(idle.ReadToEnd(), "");
  idle.Close();
  EXPECT_TRUE(open.stream->Send("goodbye"));
  open.stream->Close();
  EXPECT_EQ(open.client.ReadAnswer().body, "goodbye");
  bool clean = false;
  open.client.ReadToEnd(&clean);
  EXPECT_TRUE(clean);
  open.client.Close();
  stopping.join();
  EXPECT_EQ(test.server().open_connections(), 0u);
  EXPECT_FALSE(Client(test.port()).connected());
}

TEST(Stop, CutsStreamsAtTheDeadlineAndTellsTheirProducers) {
  TestServer test;
  Client client(test.port());
  client.Send(Get("/stream"));
  const auto exchange = test.Next();
  ASSERT_TRUE(exchange);
  Event gone;
  exchange->OnDisconnect([&] { gone.Set(); });
  const auto stream = exchange->BeginStream({}, {});
  Client half(test.port());
  half.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
  // The server has seen all of `half` once it answers a later connection's request.
  Client later(test.port());
  later.Send(Get("/where"));
  EXPECT_EQ(later.ReadAnswer().status, 200);
  test.server().Stop(milliseconds(20));
  test.server().Stop(milliseconds(20));
  EXPECT_EQ(gone.count(), 1);
  EXPECT_EQ(half.ReadAnswer().status, 503);
  test.Destroy();
  EXPECT_FALSE(stream->Send("x"));  // inert without its server
  stream->Close();
}

// Heap in use rather than resident pages: what earlier tests freed would hide what this one takes.
size_t HeapBytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

TEST(Stream, AThousandIdleOnesAreSmallAndOthersAreServed) {
  TestServer test;
  constexpr size_t kStreams = 1000;
  if (test.server().max_connections() < 2 * kStreams + 200) {
    std::fprintf(stderr, "SKIPPED: the hard limit of open files is too low for %zu streams\n",
                 kStreams);
    GTEST_SKIP();
  }
  std::vector<Open> streams;
  streams.reserve(kStreams);
  const size_t before = HeapBytes();
  for (size_t i = 0; i < kStreams; ++i) {
    streams.push_back(OpenStream(&test));
    ASSERT_TRUE(streams.back().stream);
    streams.back().stream->Send("queued");
    ASSERT_NE(streams.back().client.ReadUntil("queued\r\n"), "");
  }
  const size_t after = HeapBytes();
  const size_t per_stream = after > before ? (after - before) / kStreams : 0;
  RecordProperty("heap_bytes_per_stream", std::to_string(per_stream));
  std::fprintf(stderr, "heap bytes per idle stream, its client included: %zu\n", per_stream);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LE(per_stream, 64u << 10);
#endif
  EXPECT_EQ(test.server().open_connections(), kStreams);
  Client client(test.port());
  for (int i = 0; i < 100; ++i) {
    client.Send(Get("/where"));
    ASSERT_EQ(client.ReadAnswer().body, "/where?");
  }
  for (Open& open : streams) {
    open.stream->Send("end");
    open.stream->Close();
  }
  for (Open& open : streams) EXPECT_EQ(open.client.ReadChunk(), "end");
}

TEST(Stream, ManyProducersWriteWhileClientsLeave) {
  TestServer test({.num_io_threads = 2});
  std::vector<std::thread> producers;
  std::vector<Open> streams;
  for (int i = 0; i < 16; ++i) streams.push_back(OpenStream(&test));
  for (size_t p = 0; p < 4; ++p) {
    producers.emplace_back([&, p] {
      for (int round = 0; round < 2000; ++round) {
        for (size_t i = p % 2; i < streams.size(); i += 2) streams[i].stream->Send("data: x\n\n");
      }
    });
  }
  for (size_t i = 0; i < streams.size(); i += 2) streams[i].client.Reset();
  for (std::thread& producer : producers) producer.join();
  for (size_t i = 1; i < streams.size(); i += 2) {
    streams[i].stream->Close();
    EXPECT_EQ(streams[i].client.ReadAnswer().body.size(), 2u * 2000 * 9);
  }
}

}  // namespace
}  // namespace cachalot::http
