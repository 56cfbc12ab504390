// SPDX-License-Identifier: Apache-2.0
// cachalot render and parse as other programs use them: bytes in, bytes out, exit codes.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/chat/markers.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot {
namespace {

namespace fs = std::filesystem;

class RenderParseTest : public testing::Test {
 protected:
  // A model directory with tokenizer.json alone.
  // Its name is its own: ctest runs the tests of a fixture side by side.
  RenderParseTest() {
    std::string pattern = testing::TempDir() + "render_parse_XXXXXX";
    dir_ = mkdtemp(pattern.data());
    fs::copy(CACHALOT_SOURCE_DIR "/models/mini/tokenizer.json", dir_ / "tokenizer.json");
  }
  ~RenderParseTest() override { fs::remove_all(dir_); }

  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(dir_ / name, std::ios::binary) << text;
    return (dir_ / name).string();
  }

  // Standard output of "cachalot COMMAND -m DIR ARGUMENTS"; sets code_.
  std::string Run(const std::string& command, const std::string& arguments) {
    const std::string line = StrCat("timeout 600 ", CACHALOT_BINARY, " ", command, " -m ",
                                    dir_.string(), " ", arguments, " </dev/null");
    std::string out;
    FILE* pipe = ::popen(line.c_str(), "r");
    char buffer[4096];
    for (size_t n = 0; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) {
      out.append(buffer, n);
    }
    const int status = ::pclose(pipe);
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return out;
  }

  fs::path dir_;
  int code_ = -1;
};

TEST_F(RenderParseTest, RenderPrintsThePromptAndNothingElse) {
  const std::string file = Write("m.json", R"([{"role":"user","content":"Hi"}])");
  const std::string want =
      StrCat(chat::kBos, chat::kUserMarker, "Hi", chat::kAssistantMarker, chat::kThinkOpen);
  EXPECT_EQ(Run("render", file), want);
  EXPECT_EQ(code_, 0);
  EXPECT_TRUE(Run("render", "--format v4.1 " + file)
                  .starts_with(StrCat(chat::kBos, chat::kSystemMarker, "Reasoning Effort: 75")));
}

TEST_F(RenderParseTest, RenderPrintsIds) {
  const std::string file = Write("m.json", R"([{"role":"user","content":"Hi"}])");
  const Result<Json> ids = ParseJson(Run("render", "--ids " + file), "ids");
  ASSERT_TRUE(ids.ok() && ids->is_array());
  // BOS, User, at least one piece of "Hi", Assistant, <think> of models/mini.
  ASSERT_GE(ids->size(), 5u);
  const auto tokenizer = tokenizer::Tokenizer::Load(CACHALOT_SOURCE_DIR "/models/mini");
  ASSERT_TRUE(tokenizer.ok());
  const auto id = [&](std::string_view marker) { return (*tokenizer)->FindSpecial(marker); };
  EXPECT_EQ(ids->front(), id(chat::kBos));
  EXPECT_EQ((*ids)[1], id(chat::kUserMarker));
  EXPECT_EQ((*ids)[ids->size() - 2], id(chat::kAssistantMarker));
  EXPECT_EQ(ids->back(), id(chat::kThinkOpen));
}

TEST_F(RenderParseTest, RenderRefusesBadRequestsWithOneLine) {
  const std::string file = Write("m.json", R"([{"role":"bot"}])");
  const std::string out = Run("render", file + " 2>&1");
  EXPECT_EQ(code_, 1);
  EXPECT_TRUE(out.starts_with("cachalot: invalid argument: messages[0].role: 'bot'")) << out;
  EXPECT_EQ(out.find('\n'), out.size() - 1);
}

TEST_F(RenderParseTest, ParseAlwaysHasAllFields) {
  EXPECT_EQ(Run("parse", Write("c.txt", "answer\n")),
            "{\"role\": \"assistant\", \"content\": \"answer\\n\", \"reasoning_content\": \"\", "
            "\"tool_calls\": []}\n");
  EXPECT_EQ(Run("parse", "--thinking " + Write("c.txt", "why</think>answer")),
            "{\"role\": \"assistant\", \"content\": \"answer\", \"reasoning_content\": \"why\", "
            "\"tool_calls\": []}\n");
  const std::string invalid = Run("parse", Write("c.txt", "a\xFF b"));
  EXPECT_NE(invalid.find("a\uFFFD b"), std::string::npos);
}

TEST_F(RenderParseTest, ParseUsesDeclaredTools) {
  const std::string tools = Write("t.json", R"([{"type":"function","function":{"name":"f",
      "parameters":{"properties":{"n":{"type":"integer"}}}}}])");
  const std::string completion = Write(
      "c.txt", StrCat("<", chat::kDsml, "tool_calls>\n<", chat::kDsml, "invoke name=\"f\">\n<",
                      chat::kDsml, "parameter name=\"n\" string=\"true\">3</", chat::kDsml,
                      "parameter>\n</", chat::kDsml, "invoke>\n</", chat::kDsml, "tool_calls>"));
  EXPECT_NE(Run("parse", completion).find(R"({\"n\": \"3\"})"), std::string::npos);
  EXPECT_NE(Run("parse", StrCat("--tools ", tools, " ", completion)).find(R"({\"n\": 3})"),
            std::string::npos);
}

TEST_F(RenderParseTest, StrictRefusalIsAnAnswerWithExitCodeOne) {
  const Result<Json> json = ParseJson(Run("parse", "--strict " + Write("c.txt", "x")), "out");
  EXPECT_EQ(code_, 1);
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(json->at("error"), "completion at byte 0: no end-of-sentence marker");
  Run("parse", "--strict " + Write("c.txt", StrCat("x", chat::kEos)));
  EXPECT_EQ(code_, 0);
}

}  // namespace
}  // namespace cachalot
