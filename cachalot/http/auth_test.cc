// SPDX-License-Identifier: Apache-2.0
// API keys, event frames, CORS decisions: what needs no socket.
#include "cachalot/http/auth.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cachalot/http/cors.h"

namespace cachalot::http {
namespace {

Request With(Headers headers) {
  Request request;
  request.headers = std::move(headers);
  return request;
}

std::string WriteFile(const std::string& name, const std::string& text) {
  const auto path = std::filesystem::path(::testing::TempDir()) /
                    ("cachalot_http_" + std::to_string(::getpid()) + name);
  std::ofstream(path, std::ios::binary) << text;
  return path.string();
}

TEST(ApiKeys, NoneConfiguredIsOpen) {
  const auto keys = ApiKeys::Load({}, "");
  ASSERT_TRUE(keys.ok());
  EXPECT_EQ(keys.value().Check(With({{"Authorization", "Bearer x"}})).result, AuthResult::kOpen);
}

TEST(ApiKeys, TellsWhichKeyItWas) {
  const auto path = WriteFile("keys", "# staff\r\n\r\n  key-c  \r\nkey-d");
  const auto loaded = ApiKeys::Load({"key-a", "key-b"}, path);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  const ApiKeys& keys = loaded.value();
  EXPECT_EQ(keys.size(), 4u);
  const auto idx = [&](Headers headers) { return keys.Check(With(std::move(headers))).key_idx; };
  EXPECT_EQ(idx({{"authorization", "bearer key-b"}}), 1u);
  EXPECT_EQ(idx({{"X-API-Key", "key-c"}}), 2u);
  EXPECT_EQ(idx({{"Authorization", "Bearer key-d "}}), 3u);
  EXPECT_EQ(idx({{"Authorization", "Bearer unused"}, {"x-api-key", "key-b"}}), 1u);
  std::filesystem::remove(path);
}

TEST(ApiKeys, RefusesMissingAndWrongKeys) {
  const ApiKeys keys = ApiKeys::Load({"key-a"}, "").value();
  const auto result = [&](Headers headers) { return keys.Check(With(std::move(headers))).result; };
  EXPECT_EQ(result({}), AuthResult::kMissing);
  EXPECT_EQ(result({{"Authorization", "Basic key-a"}}), AuthResult::kMissing);
  EXPECT_EQ(result({{"Authorization", "Bearer "}}), AuthResult::kMissing);
  for (const char* wrong : {"key-", "key-aa", "KEY-A", "key-a key-a"}) {
    EXPECT_EQ(result({{"x-api-key", wrong}}), AuthResult::kWrong) << wrong;
  }
}

TEST(ApiKeys, RefusesFilesAndKeysThatWouldOpenTheServer) {
  const auto empty = WriteFile("empty", "# nothing\n\n");
  const auto spaced = WriteFile("spaced", "key a\n");
  EXPECT_NE(ApiKeys::Load({}, empty).error().message.find("no key in it"), std::string::npos);
  EXPECT_NE(ApiKeys::Load({}, spaced).error().message.find("line 1"), std::string::npos);
  EXPECT_NE(ApiKeys::Load({}, "/no/such/file").error().message.find("No such"), std::string::npos);
  EXPECT_NE(ApiKeys::Load({""}, "").error().message.find("empty API key"), std::string::npos);
  EXPECT_FALSE(ApiKeys::Load({}, ::testing::TempDir()).ok()) << "a directory";
  std::filesystem::remove(empty);
  std::filesystem::remove(spaced);
}

TEST(ApiKeys, MasksAllButTheEndOfLongKeys) {
  EXPECT_EQ(MaskKey("sk-1234567890abcd"), "****abcd");
  EXPECT_EQ(MaskKey("short"), "****");
  EXPECT_EQ(PresentedKey(With({{"x-api-key", "b"}, {"Authorization", "Bearer a"}})), "a");
}

TEST(Cors, IsOffWithoutOrigins) {
  const CorsPolicy off({});
  Request request = With({{"Origin", "http://a"}, {"Access-Control-Request-Method", "POST"}});
  request.method = "OPTIONS";
  EXPECT_FALSE(off.Preflight(request).has_value());
  EXPECT_TRUE(off.AnswerHeaders(request).empty());
}

TEST(Cors, StarAllowsAllWithoutCredentials) {
  const CorsPolicy any({"*"});
  Request request = With({{"Origin", "http://a"}, {"Access-Control-Request-Method", "POST"}});
  request.method = "OPTIONS";
  ASSERT_TRUE(any.Preflight(request).has_value());
  EXPECT_EQ(any.AnswerHeaders(request), (Headers{{"Access-Control-Allow-Origin", "*"}}));
  request.headers.pop_back();
  EXPECT_FALSE(any.Preflight(request).has_value()) << "an OPTIONS that is no preflight";
}

TEST(Cors, LocalhostMeansTheHostOnly) {
  const CorsPolicy local({"localhost"});
  const auto allows = [&](const char* origin) {
    return local.AnswerHeaders(With({{"Origin", origin}})).size() == 2;
  };
  EXPECT_TRUE(allows("http://localhost"));
  EXPECT_TRUE(allows("https://127.0.0.1:8443"));
  EXPECT_TRUE(allows("http://[::1]:80"));
  EXPECT_FALSE(allows("http://localhost.evil.example"));
  EXPECT_FALSE(allows("http://evil.example/localhost"));
  EXPECT_FALSE(allows("null"));
}

// FIPS 180-4's example: SHA-256("abc") begins ba7816bf 8f01cfea.
TEST(Sha256Prefix, IsTheBeginningOfTheDigest) {
  EXPECT_EQ(Sha256Prefix("abc"), 0xba7816bf8f01cfeau);
  EXPECT_NE(Sha256Prefix("1:2"), Sha256Prefix("12:"));
}

}  // namespace
}  // namespace cachalot::http
