// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/id_file.h"

#include <gtest/gtest.h>

namespace cachalot::cli {
namespace {

TEST(ParseIds, ReadsAnyWhiteSpace) {
  const auto ids = ParseIds(" 1\n2\t\r\n  9 ", "f", 10);
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(*ids, (std::vector<uint32_t>{1, 2, 9}));
}

TEST(ParseIds, RefusesWhatIsNoIdOfTheVocabulary) {
  for (const char* text : {"", " \n", "10", "-1", "1,2", "1 x", "99999999999", "0x1", "1.0"}) {
    const auto ids = ParseIds(text, "file.txt", 10);
    ASSERT_FALSE(ids.ok()) << text;
    EXPECT_EQ(ids.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(ids.error().message.find("file.txt"), std::string::npos);
  }
}

TEST(ParseIds, ErrorNamesTheWordAndStaysOneLine) {
  const auto ids = ParseIds("1 2 \x1b[2Jabc", "f", 10);
  ASSERT_FALSE(ids.ok());
  EXPECT_NE(ids.error().message.find("id 3 is '?[2Jabc'"), std::string::npos);
}

}  // namespace
}  // namespace cachalot::cli
