// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/python_json.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "cachalot/chat/golden_cases.h"
#include "cachalot/tokenizer/stream_decoder.h"

namespace cachalot::chat {
namespace {

std::string RoundTrip(const std::string& text) {
  const Result<JsonValue> json = ParseJsonValue(text, "test");
  return json.ok() ? DumpPythonJson(*json) : json.error().message;
}

TEST(PythonJson, EqualsPythonOnGoldenPairs) {
  for (const JsonValue& pair : GoldenCases("python_json_dumps.json")) {
    EXPECT_EQ(RoundTrip(TextOf(pair, "json_in")), TextOf(pair, "python_out"));
  }
}

TEST(PythonJson, FloatsFollowPythonsRepr) {
  EXPECT_EQ(RoundTrip("[1e0, 12.5e1, 1e-4, 9.9e-5, 1e22, 123456789012345678.0, -1.5e-10]"),
            "[1.0, 125.0, 0.0001, 9.9e-05, 1e+22, 1.2345678901234568e+17, -1.5e-10]");
  EXPECT_EQ(RoundTrip("[1e-400, -1e-400, -1e400, 0.0e999999999999, 1e99999999999, 0.01e-330]"),
            "[0.0, -0.0, -Infinity, 0.0, Infinity, 0.0]");
}

TEST(PythonJson, LoneSurrogatesBecomeReplacementCharacters) {
  EXPECT_EQ(RoundTrip("\"\\ud83d\""), "\"\uFFFD\"");
  EXPECT_EQ(RoundTrip("\"\\ude00x\""), "\"\uFFFDx\"");
  EXPECT_EQ(RoundTrip("\"\\ud83d\\u0041\""), "\"\uFFFDA\"");
}

TEST(PythonJson, DuplicateKeysKeepFirstPlaceAndLastValue) {
  EXPECT_EQ(RoundTrip("{\"a\":1,\"b\":2,\"a\":[3]}"), "{\"a\": [3], \"b\": 2}");
}

TEST(JsonReader, RefusesWhatIsNotJson) {
  for (const char* bad :
       {"",        " ",         "{",         "[1,]",   "{\"a\":}", "01",
        "1.",      "-",         "1e",        "+1",     "tru",      "nul",
        "\"\\x\"", "\"\\u12\"", "\"a",       "\"\n\"", "\"\xFF\"", "\"\xED\xA0\x80\"",
        "1 2",     "{a:1}",     "{\"a\" 1}", "[1 2]",  "NaN",      "Infinity"}) {
    EXPECT_FALSE(ParseJsonValue(bad, "test").ok()) << bad;
  }
}

TEST(JsonReader, StopsAtTheDepthLimit) {
  EXPECT_TRUE(ParseJsonValue(std::string(256, '[') + std::string(256, ']'), "test").ok());
  EXPECT_FALSE(ParseJsonValue(std::string(257, '[') + std::string(257, ']'), "test").ok());
  EXPECT_FALSE(ParseJsonValue(std::string(1 << 20, '{'), "test").ok());
}

TEST(JsonReader, ErrorNamesFileAndByte) {
  const Result<JsonValue> json = ParseJsonValue("{\"a\": tru}", "request.json");
  ASSERT_FALSE(json.ok());
  EXPECT_EQ(json.error().message, "request.json: not valid JSON at byte 6: expected a value");
}

RC_GTEST_PROP(JsonReader, AnyTextSurvivesAsAString, (const std::string& text)) {
  tokenizer::Utf8Stream utf8;
  const std::string clean = utf8.Push(text) + utf8.Finish();
  const Result<JsonValue> json = ParseJsonValue(JsonString(clean), "test");
  RC_ASSERT(json.ok());
  RC_ASSERT(json->text == clean);
}

RC_GTEST_PROP(JsonReader, DoublesReadBackEqual, (double value)) {
  RC_PRE(value == value);
  char buffer[40];
  std::snprintf(buffer, sizeof(buffer), "%.17e", value);
  RC_ASSERT(std::stod(RoundTrip(buffer)) == value);
}

}  // namespace
}  // namespace cachalot::chat
