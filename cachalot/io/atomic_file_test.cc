// SPDX-License-Identifier: Apache-2.0
#include "cachalot/io/atomic_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "cachalot/base/strings.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::io {
namespace {

namespace fs = std::filesystem;

class AtomicFileTest : public testing::Test {
 protected:
  AtomicFileTest() { fs::create_directories(dir_); }
  ~AtomicFileTest() override { fs::remove_all(dir_); }

  size_t num_files() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(dir_), {}));
  }

  const fs::path dir_ = fs::temp_directory_path() / StrCat("cachalot_atomic_", ::getpid());
  const std::string path_ = dir_ / "file";
};

TEST_F(AtomicFileTest, AppearsWholeWithWhatWasRewritten) {
  auto file = AtomicFile::Create(path_);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->Write("....", 4).ok());
  ASSERT_TRUE(file->Write("body", 4).ok());
  ASSERT_TRUE(file->Rewrite(1, "ab", 2).ok());
  ASSERT_TRUE(file->Write("tail", 4).ok());  // goes on behind, not where it was rewritten
  EXPECT_FALSE(fs::exists(path_));
  ASSERT_TRUE(file->Commit().ok());
  const auto text = ReadFile(path_, 100);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text, ".ab.bodytail");
  EXPECT_EQ(num_files(), 1u);
}

TEST_F(AtomicFileTest, WithoutCommitNothingStays) {
  {
    auto file = AtomicFile::Create(path_);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Write("half", 4).ok());
  }
  EXPECT_EQ(num_files(), 0u);
}

TEST_F(AtomicFileTest, AFolderThatIsNotThereIsNamed) {
  const auto file = AtomicFile::Create(dir_ / "none" / "file");
  ASSERT_FALSE(file.ok());
  EXPECT_NE(file.error().message.find("none"), std::string::npos) << file.error().message;
}

}  // namespace
}  // namespace cachalot::io
