// SPDX-License-Identifier: Apache-2.0
#include "cachalot/io/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

namespace cachalot::io {
namespace {

class MappedFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "cachalot_io_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string Path(const char* name) const { return dir_ + "/" + name; }
  std::string dir_;
};

TEST_F(MappedFileTest, WrittenBytesComeBack) {
  const std::string bytes("a\0b", 3);
  ASSERT_TRUE(WriteFileAtomic(Path("f"), bytes).ok());
  const auto read = ReadFile(Path("f"), 3);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(*read, bytes);
  const auto mapped = MappedFile::Open(Path("f"));
  ASSERT_TRUE(mapped.ok());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(mapped->data()), mapped->size()), bytes);
  EXPECT_EQ(ReadFile(Path("f"), 2).error().code, ErrorCode::kResourceExhausted);
}

TEST_F(MappedFileTest, ShrinkingUnderTheMapIsSeen) {
  ASSERT_TRUE(WriteFileAtomic(Path("f"), "0123456789").ok());
  const auto mapped = MappedFile::Open(Path("f"));
  ASSERT_TRUE(mapped.ok());
  EXPECT_TRUE(mapped->CheckUnchanged().ok());
  ASSERT_EQ(truncate(Path("f").c_str(), 4), 0);
  const Status status = mapped->CheckUnchanged();
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("from 10 to 4"), std::string::npos);
}

TEST_F(MappedFileTest, WhatIsNoReadableFileIsRefusedAtOnce) {
  EXPECT_EQ(MappedFile::Open(Path("none")).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(MappedFile::Open(dir_).error().code, ErrorCode::kIo);
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  EXPECT_EQ(MappedFile::Open(Path("fifo")).error().code, ErrorCode::kIo);
  EXPECT_FALSE(ReadFile(dir_, 10).ok());
  EXPECT_FALSE(WriteFileAtomic(Path("none/f"), "x").ok());
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  ASSERT_TRUE(WriteFileAtomic(Path("secret"), "x").ok());
  ASSERT_EQ(chmod(Path("secret").c_str(), 0), 0);
  EXPECT_EQ(MappedFile::Open(Path("secret")).error().code, ErrorCode::kIo);
}

TEST_F(MappedFileTest, EmptyFilesMap) {
  ASSERT_TRUE(WriteFileAtomic(Path("f"), "").ok());
  const auto mapped = MappedFile::Open(Path("f"));
  ASSERT_TRUE(mapped.ok());
  EXPECT_EQ(mapped->size(), 0u);
}

}  // namespace
}  // namespace cachalot::io
