// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/parse_strict.h"

#include <gtest/gtest.h>

#include "cachalot/base/strings.h"
#include "cachalot/chat/golden_cases.h"
#include "cachalot/chat/markers.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::chat {
namespace {

std::string Parse(std::string_view text, const StrictOptions& options = {}) {
  const Result<ParsedMessage> message = ParseStrict(text, options);
  return message.ok() ? MessageToJson(*message) : message.error().message;
}

TEST(StrictParser, AgreesWithEveryGoldenCase) {
  for (const JsonValue& golden : GoldenCases("parse_v4_strict.json")) {
    const StrictOptions options{.thinking = TextOf(golden, "thinking_mode") == "thinking"};
    const Result<ParsedMessage> message = ParseStrict(TextOf(golden, "text"), options);
    const JsonValue* want = golden.Find("strict_result");
    ASSERT_EQ(message.ok(), want != nullptr) << TextOf(golden, "name");
    if (want != nullptr) {
      EXPECT_EQ(MessageToJson(*message), DumpPythonJson(*want)) << TextOf(golden, "name");
    }
  }
}

TEST(StrictParser, ReadsV41TagsAndSplitsNamespaces) {
  const std::string dsml(kDsml);
  const std::string text =
      StrCat("hi\n\n<", dsml, " calls>\n<", dsml, " invoke name=\"crm::find\">\n<", dsml,
             " parameter name=\"a\" string=\"true\">x</", dsml, " parameter>\n</", dsml,
             " invoke>\n</", dsml, " calls>", kEos);
  EXPECT_EQ(Parse(text, {.format = Format::kV4_1}),
            R"({"role": "assistant", "content": "hi", "reasoning_content": "", "tool_calls": )"
            R"([{"type": "function", "function": {"namespace": "crm", "name": "find", )"
            R"("arguments": "{\"a\": \"x\"}"}}]})");
  EXPECT_NE(Parse(text).find("left in the content"), std::string::npos);
}

TEST(StrictParser, ErrorsNameTheByte) {
  EXPECT_EQ(Parse("answer"), "completion at byte 0: no end-of-sentence marker");
  EXPECT_EQ(Parse(StrCat("x", kEos, "y")),
            StrCat("completion at byte ", 1 + kEos.size(), ": text after the end"));
}

// What the encoder writes, the parser reads back.
TEST(StrictParser, EndOfTextAfterTheBlockIsAccepted) {
  const std::string dsml(kDsml);
  EXPECT_EQ(Parse(StrCat("\n\n<", dsml, "tool_calls>\n</", dsml, "tool_calls>")),
            R"({"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": []})");
}

TEST(StrictParser, ManyCallsCostLinearTime) {
  std::string text = StrCat("\n\n<", kDsml, "tool_calls>\n");
  for (int i = 0; i < 20000; ++i) {
    text += StrCat("<", kDsml, "invoke name=\"f\">\n</", kDsml, "invoke>\n");
  }
  text += StrCat("</", kDsml, "tool_calls>");
  const Result<ParsedMessage> message = ParseStrict(text, {});
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->tool_calls.size(), 20000u);
}

}  // namespace
}  // namespace cachalot::chat
