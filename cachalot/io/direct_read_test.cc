// SPDX-License-Identifier: Apache-2.0
#include "cachalot/io/direct_read.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "cachalot/io/mapped_file.h"

namespace cachalot::io {
namespace {

std::string TemporaryFile(size_t bytes) {
  const std::string path = "direct_read_test." + std::to_string(getpid());
  EXPECT_TRUE(WriteFileAtomic(path, std::string(bytes, 'x')).ok());
  return path;
}

TEST(DirectRead, ReadsEveryWholeBlockOnce) {
  const std::string path = TemporaryFile(5 * 65536 + 100);
  const auto speed =
      MeasureDirectReads(path, {.depth = 3, .block_bytes = 65536, .max_seconds = 60});
  unlink(path.c_str());
  if (!speed.ok()) {  // no O_DIRECT where the test runs
    EXPECT_EQ(speed.error().code, ErrorCode::kUnsupported);
    GTEST_SKIP() << speed.error().message;
  }
  EXPECT_EQ(speed->bytes, 5u * 65536);
  EXPECT_GT(speed->bytes_per_s, 0);
}

TEST(DirectRead, SaysWhatIsMissing) {
  EXPECT_EQ(MeasureDirectReads("no/such/file", {}).error().code, ErrorCode::kNotFound);
  const std::string path = TemporaryFile(100);
  EXPECT_EQ(MeasureDirectReads(path, {}).error().code, ErrorCode::kUnsupported);
  unlink(path.c_str());
}

}  // namespace
}  // namespace cachalot::io
