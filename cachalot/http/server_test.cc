// SPDX-License-Identifier: Apache-2.0
// Requests and whole answers: framing, keep-alive, pipelining, limits, refusals.
#include "cachalot/http/server.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <random>

#include "cachalot/http/test_server.h"

namespace cachalot::http {
namespace {

using std::chrono::milliseconds;
using testing::Answered;
using testing::Client;
using testing::Event;
using testing::Get;
using testing::PostBody;
using testing::TestServer;

TEST(Server, AnswersManyRequestsOnOneConnection) {
  TestServer test;
  Client client(test.port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.Send(PostBody("/echo", "body " + std::to_string(i))));
    const Answered answer = client.ReadAnswer();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, "body " + std::to_string(i));
  }
  EXPECT_EQ(test.server().open_connections(), 1u);
}

TEST(Server, AnswersPipelinedRequestsInOrder) {
  TestServer test;
  Client client(test.port());
  std::string all;
  for (int i = 0; i < 20; ++i) all += PostBody("/echo", std::to_string(i));
  ASSERT_TRUE(client.Send(all));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(client.ReadAnswer().body, std::to_string(i));
}

TEST(Server, HoldsPipelinedRequestsWhileOneRuns) {
  TestServer test;
  Client client(test.port());
  ASSERT_TRUE(client.Send(Get("/slow") + PostBody("/echo", std::string(100'000, 'x'))));
  const auto slow = test.Next();
  ASSERT_TRUE(slow);
  slow->Reply({.body = "slow"});
  EXPECT_EQ(client.ReadAnswer().body, "slow");
  EXPECT_EQ(client.ReadAnswer().body.size(), 100'000u);
}

TEST(Server, TakesRequestsByteByByte) {
  TestServer test;
  Client client(test.port());
  for (const char c : PostBody("/echo", "abc")) ASSERT_TRUE(client.Send({&c, 1}));
  EXPECT_EQ(client.ReadAnswer().body, "abc");
}

TEST(Server, TakesChunkedBodiesAndSplitsTheQuery) {
  TestServer test;
  Client client(test.port());
  client.Send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  client.Send("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().body, "abcde");
  client.Send(Get("/where?a=b?c#d"));
  EXPECT_EQ(client.ReadAnswer().body, "/where?a=b?c");
  client.Send(Get("http://proxied/where?q"));
  EXPECT_EQ(client.ReadAnswer().body, "/where?q");
}

TEST(Server, SendsContinueBeforeTheBody) {
  TestServer test;
  Client client(test.port());
  client.Send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("ok");
  EXPECT_EQ(client.ReadAnswer().body, "ok");
}

TEST(Server, ClosesAfterHttp10UnlessAskedToKeep) {
  TestServer test;
  Client client(test.port());
  client.Send("GET /where HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_TRUE(client.ReadAnswer().Has("Connection: keep-alive"));
  client.Send("GET /where HTTP/1.0\r\n\r\n");
  EXPECT_TRUE(client.ReadAnswer().Has("Connection: close"));
  bool clean = false;
  EXPECT_EQ(client.ReadToEnd(&clean), "");
  EXPECT_TRUE(clean);
}

TEST(Server, AnswersHeadWithoutBody) {
  TestServer test;
  Client client(test.port());
  client.Send("HEAD /where HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(client.ReadAnswer(/*has_body=*/false).Has("Content-Length: 7"));
  client.Send(Get("/where"));
  EXPECT_EQ(client.ReadAnswer().body, "/where?");
}

TEST(Server, AnswersFromAnyThreadLater) {
  TestServer test;
  Client client(test.port());
  client.Send(Get("/later", "X-Name: value\r\n"));
  const auto exchange = test.Next();
  ASSERT_TRUE(exchange);
  EXPECT_EQ(exchange->request().Header("x-nAME"), "value");
  EXPECT_EQ(exchange->request().remote.substr(0, 10), "127.0.0.1:");
  exchange->Reply({.status = 404, .headers = {{"X-Echo", "a\r\nEvil: b"}}, .body = "none"});
  exchange->Reply({.body = "ignored"});
  const Answered answer = client.ReadAnswer();
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.body, "none");
  EXPECT_TRUE(answer.Has("X-Echo: a  Evil: b"));
}

TEST(Server, AnswersForHandlersThatThrowOrForget) {
  TestServer test;
  Client client(test.port());
  for (const char* path : {"/throw", "/drop"}) {
    client.Send(Get(path));
    const Answered answer = client.ReadAnswer();
    EXPECT_EQ(answer.status, 500);
    EXPECT_NE(answer.body.find("\"error\""), std::string::npos);
  }
}

struct Refused {
  const char* name;
  std::string bytes;
  int status;
};

class ServerRefuses : public ::testing::TestWithParam<Refused> {};

TEST_P(ServerRefuses, InJsonAndOthersGoOn) {
  TestServer test({.max_body_bytes = 1000, .max_header_bytes = 2000});
  Client other(test.port());
  Client client(test.port());
  ASSERT_TRUE(client.Send(GetParam().bytes));
  const Answered answer = client.ReadAnswer();
  EXPECT_EQ(answer.status, GetParam().status);
  EXPECT_TRUE(answer.Has("Content-Type: application/json"));
  EXPECT_TRUE(answer.Has("Connection: close"));
  EXPECT_EQ(answer.body.substr(0, 21), "{\"error\":{\"message\":\"");
  client.Close();
  other.Send(Get("/where"));
  EXPECT_EQ(other.ReadAnswer().status, 200);
}

INSTANTIATE_TEST_SUITE_P(
    All, ServerRefuses,
    ::testing::Values(
        Refused{"Garbage", "\x16\x03\x01 what?\r\n\r\n", 400},
        Refused{"BadHeader", "GET / HTTP/1.1\r\nno colon\r\n\r\n", 400},
        Refused{"BadLength", "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400},
        Refused{"TwoLengths", "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
                400},
        Refused{"LengthAndChunks",
                "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
                400},
        Refused{"NoHost", "GET / HTTP/1.1\r\n\r\n", 400},
        Refused{"TwoHosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
        Refused{"OtherCoding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc",
                501},
        Refused{"BadChunk",
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
        Refused{"Http2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
        Refused{"LongBody", "POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413},
        Refused{"LongChunks",
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" +
                    std::string(1001, 'x'),
                413},
        Refused{"LongHeaders", "GET / HTTP/1.1\r\nA: " + std::string(3000, 'x') + "\r\n\r\n", 431},
        Refused{"EndlessHeader", "GET / HTTP/1.1\r\nA: " + std::string(3000, 'x'), 431}),
    [](const auto& test_case) { return std::string(test_case.param.name); });

TEST(Server, RefusalSurvivesABodyStillBeingSent) {
  TestServer test({.max_body_bytes = 1000});
  Client client(test.port());
  client.Send("POST / HTTP/1.1\r\nContent-Length: 4000000\r\n\r\n");
  client.Send(std::string(4'000'000, 'x'));  // all of it, before reading
  EXPECT_EQ(client.ReadAnswer().status, 413);
}

TEST(Server, GateRefusesBeforeTheBodyIsRead) {
  const Gate gate = [](const Request& request) -> std::optional<Response> {
    if (request.Header("x-api-key") == "good") return std::nullopt;
    return JsonError(401, "authentication_error", "wrong key");
  };
  TestServer test({.cors_origins = {"*"}}, gate);
  Client client(test.port());
  client.Send(Get("/where"));
  EXPECT_EQ(client.ReadAnswer().status, 401);
  client.Send(Get("/where", "x-api-key: good\r\n"));  // the connection went on
  EXPECT_EQ(client.ReadAnswer().status, 200);
  client.Send("POST /echo HTTP/1.1\r\nHost: x\r\nx-api-key: good\r\nContent-Length: 2\r\n\r\n");
  client.Send("ok");
  EXPECT_EQ(client.ReadAnswer().body, "ok");
  client.Send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n");
  const Answered refused = client.ReadAnswer();
  EXPECT_EQ(refused.status, 401);
  EXPECT_TRUE(refused.Has("Connection: close"));
  EXPECT_TRUE(refused.Has("Access-Control-Allow-Origin: *"));
}

TEST(Server, TimesOutSlowHeadersAndBodies) {
  TestServer test({.header_timeout = milliseconds(50), .body_timeout = milliseconds(50)});
  Client header(test.port());
  Client body(test.port());
  Client silent(test.port());
  header.Send("GET / HTTP/1.1\r\n");
  body.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(header.ReadAnswer().status, 408);
  EXPECT_EQ(body.ReadAnswer().status, 408);
  EXPECT_EQ(silent.ReadToEnd(), "");
}

TEST(Server, ClosesIdleConnections) {
  TestServer test({.idle_timeout = milliseconds(50)});
  Client client(test.port());
  client.Send(Get("/where"));
  EXPECT_EQ(client.ReadAnswer().status, 200);
  bool clean = false;
  EXPECT_EQ(client.ReadToEnd(&clean), "");
  EXPECT_TRUE(clean);
}

TEST(Server, ClosesConnectionsPastTheLimit) {
  TestServer test({.max_connections = 2});
  Client first(test.port());
  Client second(test.port());
  for (Client* client : {&first, &second}) {
    client->Send(Get("/where"));
    EXPECT_EQ(client->ReadAnswer().status, 200);
  }
  Client third(test.port());
  EXPECT_EQ(third.ReadToEnd(), "");
  first.Send(Get("/where"));
  EXPECT_EQ(first.ReadAnswer().status, 200);
}

// Whole, mutated and cut requests from clients that wait, close or reset.
TEST(Server, SurvivesRandomClients) {
  constexpr uint32_t kSeed = 20261124;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  const auto below = [&](size_t n) { return static_cast<size_t>(random()) % n; };
  TestServer test({.max_body_bytes = 1000, .max_header_bytes = 1024});
  const std::string valid = PostBody("/echo", "hello") +
                            Get("/where?x", "Expect: 100-continue\r\n") +
                            "POST /other HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                            "3\r\nabc\r\n0\r\n\r\n";
  for (int i = 0; i < 1000; ++i) {
    std::string bytes = valid.substr(0, below(valid.size() + 1));
    for (size_t m = below(4); m > 0 && !bytes.empty(); --m) {
      bytes[below(bytes.size())] = static_cast<char>(below(256));
    }
    Client client(test.port());
    const size_t cut = below(bytes.size() + 1);
    client.Send(bytes.substr(0, cut));
    client.Send(bytes.substr(cut));
    if (const size_t end = below(3); end == 0) {
      client.Reset();
    } else if (end == 1) {
      client.ShutdownSend();
      client.ReadToEnd();
    }
  }
  Client client(test.port());
  client.Send(Get("/where"));
  EXPECT_EQ(client.ReadAnswer().status, 200);
  for (int i = 0; i < 2000 && test.server().open_connections() > 1; ++i) usleep(1000);
  EXPECT_EQ(test.server().open_connections(), 1u) << "all others have been noticed to be gone";
}

TEST(Server, TellsWhyItCannotStart) {
  TestServer test;
  const Handler handler = [](const std::shared_ptr<Exchange>&) {};
  const auto message = [&](ServerOptions options) {
    const auto started = Server::Start(std::move(options), handler);
    return started.ok() ? std::string("started") : started.error().message;
  };
  EXPECT_NE(message({.port = test.port()}).find("in use"), std::string::npos);
  EXPECT_NE(message({.host = "not a host"}).find("cannot resolve"), std::string::npos);
  EXPECT_NE(message({.port = 0, .tls_cert = "x"}).find("give both"), std::string::npos);
  EXPECT_NE(message({.port = 0, .max_connections = 0}).find("at least 1"), std::string::npos);
}

TEST(Server, AddsCorsHeadersOnlyForAllowedOrigins) {
  TestServer test({.cors_origins = {"https://a.example", "localhost"}});
  Client client(test.port());
  client.Send(
      "OPTIONS /v1/x HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\n"
      "Access-Control-Request-Method: POST\r\n"
      "Access-Control-Request-Headers: x-stainless-os\r\n\r\n");
  const Answered preflight = client.ReadAnswer();
  EXPECT_EQ(preflight.status, 204);
  EXPECT_TRUE(preflight.Has("Access-Control-Allow-Origin: https://a.example"));
  EXPECT_TRUE(preflight.Has("Access-Control-Allow-Headers: x-stainless-os"));
  client.Send(Get("/where", "Origin: http://localhost:3000\r\n"));
  EXPECT_TRUE(client.ReadAnswer().Has("Access-Control-Allow-Origin: http://localhost:3000"));
  client.Send(Get("/where", "Origin: http://localhost.evil.example\r\n"));
  EXPECT_EQ(client.ReadAnswer().head.find("Allow-Origin"), std::string::npos);
}

}  // namespace
}  // namespace cachalot::http
