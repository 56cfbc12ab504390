// SPDX-License-Identifier: Apache-2.0
#include "cachalot/io/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
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

TEST_F(MappedFileTest, ACopyHoldsTheSameBytesAndOutlivesTheFile) {
  std::string bytes(5 * 1000 * 1000, 'x');
  for (size_t i = 0; i < bytes.size(); i += 997) bytes[i] = static_cast<char>(i % 251);
  ASSERT_TRUE(WriteFileAtomic(Path("f"), bytes).ok());
  uint64_t reported = 0;
  const auto copy = MappedFile::Open(Path("f"), FileMemory::kHugePages, [&](uint64_t n) {
    reported += n;
    return true;
  });
  ASSERT_TRUE(copy.ok()) << copy.error().message;
  EXPECT_EQ(reported, bytes.size());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(copy->data()) % (2u << 20), 0u);
  ASSERT_EQ(truncate(Path("f").c_str(), 4), 0);
  EXPECT_TRUE(copy->CheckUnchanged().ok());
  ASSERT_EQ(copy->size(), bytes.size());
  EXPECT_EQ(std::memcmp(copy->data(), bytes.data(), bytes.size()), 0);
}

TEST_F(MappedFileTest, PreloadReportsEveryByteOnceInBothMemories) {
  ASSERT_TRUE(WriteFileAtomic(Path("f"), std::string(100000, 'x')).ok());
  for (const FileMemory memory : {FileMemory::kMapped, FileMemory::kHugePages}) {
    const auto file = MappedFile::Open(Path("f"), memory);
    ASSERT_TRUE(file.ok());
    uint64_t reported = 0;
    const Status status = file->Preload([&](uint64_t n) {
      reported += n;
      return true;
    });
    ASSERT_TRUE(status.ok()) << status.error().message;
    EXPECT_EQ(reported, file->size());
  }
}

TEST_F(MappedFileTest, LoadingStopsWhenTold) {
  ASSERT_TRUE(WriteFileAtomic(Path("f"), std::string(100000, 'x')).ok());
  const auto stop = [](uint64_t) { return false; };
  EXPECT_EQ(MappedFile::Open(Path("f"), FileMemory::kHugePages, stop).error().code,
            ErrorCode::kCancelled);
  const auto mapped = MappedFile::Open(Path("f"));
  ASSERT_TRUE(mapped.ok());
  EXPECT_EQ(mapped->Preload(stop).error().code, ErrorCode::kCancelled);
}

TEST_F(MappedFileTest, LockingMoreThanTheLimitNamesIt) {
  ASSERT_TRUE(WriteFileAtomic(Path("f"), std::string(100000, 'x')).ok());
  const auto mapped = MappedFile::Open(Path("f"));
  ASSERT_TRUE(mapped.ok());
  struct rlimit before {};
  ASSERT_EQ(getrlimit(RLIMIT_MEMLOCK, &before), 0);
  struct rlimit none = before;
  none.rlim_cur = 0;
  ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &none), 0);
  const Status status = mapped->Lock();
  setrlimit(RLIMIT_MEMLOCK, &before);
  if (status.ok()) GTEST_SKIP() << "a privileged process may lock what it likes";
  EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(status.error().message.find("--lock"), std::string::npos);
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
