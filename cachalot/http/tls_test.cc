// SPDX-License-Identifier: Apache-2.0
// TLS: the same answers, streams and disconnects as without; clear errors for wrong files. The
// certificates are made here.
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "cachalot/http/test_server.h"

namespace cachalot::http {
namespace {

using testing::Answered;
using testing::Client;
using testing::Event;
using testing::Get;
using testing::PostBody;
using testing::TestServer;

// A self-signed certificate and its key in temporary files.
class Identity {
 public:
  explicit Identity(const std::string& name)
      : cert_path((std::filesystem::path(::testing::TempDir()) /
                   (name + std::to_string(::getpid()) + "_cert.pem"))
                      .string()),
        key_path((std::filesystem::path(::testing::TempDir()) /
                  (name + std::to_string(::getpid()) + "_key.pem"))
                     .string()) {
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* cert = X509_new();
    X509_set_version(cert, 2);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME* subject = X509_get_subject_name(cert);
    const auto* common_name = reinterpret_cast<const unsigned char*>("localhost");
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, common_name, -1, -1, 0);
    X509_set_issuer_name(cert, subject);
    X509_sign(cert, key, EVP_sha256());
    Write(cert_path, [&](FILE* file) { PEM_write_X509(file, cert); });
    Write(key_path, [&](FILE* file) {
      PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
    });
    Write(encrypted_key_path(), [&](FILE* file) {
      auto* phrase = reinterpret_cast<const unsigned char*>("secret");
      PEM_write_PrivateKey(file, key, EVP_aes_128_cbc(), phrase, 6, nullptr, nullptr);
    });
    X509_free(cert);
    EVP_PKEY_free(key);
  }
  ~Identity() {
    for (const auto& path : {cert_path, key_path, encrypted_key_path()}) {
      std::filesystem::remove(path);
    }
  }
  std::string encrypted_key_path() const { return key_path + ".encrypted"; }

  const std::string cert_path;
  const std::string key_path;

 private:
  template <typename F>
  static void Write(const std::string& path, F write) {
    FILE* file = std::fopen(path.c_str(), "w");
    ASSERT_NE(file, nullptr);
    write(file);
    std::fclose(file);
  }
};

class Tls : public ::testing::Test {
 protected:
  ServerOptions Options() const {
    return {.tls_cert = identity_.cert_path, .tls_key = identity_.key_path};
  }
  ~Tls() override { SSL_CTX_free(context_); }

  Identity identity_{"cachalot_http_tls"};
  SSL_CTX* context_ = SSL_CTX_new(TLS_client_method());
};

TEST_F(Tls, AnswersPipelinedAndLargeRequests) {
  TestServer test(Options());
  Client client(test.port(), context_);
  ASSERT_TRUE(client.connected());
  const std::string large(3'000'000, 'x');
  client.Send(Get("/where") + PostBody("/echo", large));
  EXPECT_EQ(client.ReadAnswer().body, "/where?");
  EXPECT_EQ(client.ReadAnswer().body, large);
}

TEST_F(Tls, StreamsAndNoticesTheClientLeave) {
  TestServer test(Options());
  Client client(test.port(), context_);
  client.Send(Get("/stream"));
  const auto exchange = test.Next();
  ASSERT_TRUE(exchange);
  Event gone;
  exchange->OnDisconnect([&] { gone.Set(); });
  const auto stream = exchange->BeginStream({}, {});
  stream->Send("first");
  EXPECT_NE(client.ReadUntil("first\r\n"), "");
  client.Close();
  EXPECT_TRUE(gone.Wait());
}

TEST_F(Tls, EndsWithACloseNotify) {
  TestServer test(Options());
  Client client(test.port(), context_);
  client.Send("GET /stream HTTP/1.0\r\n\r\n");
  const auto stream = test.Next()->BeginStream({}, {});
  stream->Send("whole");
  stream->Close();
  EXPECT_EQ(client.ReadAnswer().status, 200);
  bool clean = false;
  EXPECT_EQ(client.ReadToEnd(&clean), "whole");
  EXPECT_TRUE(clean);
}

TEST_F(Tls, RefusalSurvivesABodyStillBeingSent) {
  ServerOptions options = Options();
  options.max_body_bytes = 1000;
  TestServer test(options);
  Client client(test.port(), context_);
  client.Send("POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + std::string(1'000'000, 'x'));
  EXPECT_EQ(client.ReadAnswer().status, 413);
}

TEST_F(Tls, DropsPlainClients) {
  TestServer test(Options());
  Client plain(test.port());
  plain.Send(Get("/where"));
  EXPECT_EQ(plain.ReadToEnd().find("HTTP/1.1 200"), std::string::npos);
  Client client(test.port(), context_);
  client.Send(Get("/where"));
  EXPECT_EQ(client.ReadAnswer().status, 200);
}

TEST_F(Tls, TellsWhichFileIsWrong) {
  const Identity other("cachalot_http_other");
  const auto message = [](const std::string& cert, const std::string& key) {
    const auto started =
        Server::Start({.port = 0, .tls_cert = cert, .tls_key = key}, [](const auto&) {});
    return started.ok() ? std::string("started") : started.error().message;
  };
  const std::string& cert = identity_.cert_path;
  const std::string& key = identity_.key_path;
  EXPECT_NE(message("/no/cert", key).find("TLS certificate /no/cert: "), std::string::npos);
  EXPECT_NE(message(key, key).find("expected a PEM certificate"), std::string::npos);
  EXPECT_NE(message(cert, "/no/key").find("TLS key /no/key: "), std::string::npos);
  EXPECT_NE(message(cert, cert).find("TLS key"), std::string::npos);
  EXPECT_NE(message(cert, other.key_path).find("key values mismatch"), std::string::npos);
  EXPECT_NE(message(cert, identity_.encrypted_key_path()).find("unencrypted"), std::string::npos);
}

}  // namespace
}  // namespace cachalot::http
