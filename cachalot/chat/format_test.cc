// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/format.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace cachalot::chat {
namespace {

class FormatOfDir : public testing::Test {
 protected:
  FormatOfDir() : dir_(testing::TempDir() + "format_of_dir_" + std::to_string(::getpid())) {
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_ + "/encoding");
  }
  ~FormatOfDir() override { std::filesystem::remove_all(dir_); }

  void Write(const std::string& name, std::string_view text) const {
    std::ofstream(dir_ + "/" + name) << text;
  }
  std::string Detected() const {
    const Result<Format> format = DetectFormatOfDir(dir_);
    return format.ok() ? std::string(FormatName(*format)) : format.error().message;
  }

  std::string dir_;
};

TEST_F(FormatOfDir, IsPreviewWithoutFurtherFacts) {
  Write("tokenizer.json", "{}");
  EXPECT_EQ(Detected(), "v4-preview");
}

TEST_F(FormatOfDir, DsparkKeysMean0731) {
  Write("config.json", R"({"dspark_block_size": 4})");
  EXPECT_EQ(Detected(), "v4-0731");
}

TEST_F(FormatOfDir, AnEncoderWithEffortPromptsMeans0731) {
  Write("encoding/encoding_dsv4.py", "REASONING_EFFORT_PROMPTS = {}");
  EXPECT_EQ(Detected(), "v4-0731");
}

TEST_F(FormatOfDir, TheSystemTokenMeansV41HoweverItIsEscaped) {
  Write("config.json", R"({"dspark_block_size": 4})");
  Write("tokenizer.json", "{\"content\": \"<\uFF5CSystem\uFF5C>\"}");
  EXPECT_EQ(Detected(), "v4.1");
  Write("tokenizer.json", R"({"content": "<\uff5cSystem\uff5c>"})");
  EXPECT_EQ(Detected(), "v4.1");
}

TEST_F(FormatOfDir, AMalformedConfigIsAnError) {
  Write("config.json", "{");
  EXPECT_NE(Detected().find("config.json: not valid JSON"), std::string::npos);
}

TEST(FormatName, RoundTrips) {
  for (const Format format : {Format::kV4Preview, Format::kV4_0731, Format::kV4_1}) {
    EXPECT_EQ(*ParseFormatName(FormatName(format)), format);
  }
  EXPECT_FALSE(ParseFormatName("v5").ok());
}

}  // namespace
}  // namespace cachalot::chat
