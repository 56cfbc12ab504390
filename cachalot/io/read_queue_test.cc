// SPDX-License-Identifier: Apache-2.0
#include "cachalot/io/read_queue.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "cachalot/base/temp_dir.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::io {
namespace {

struct Free {
  void operator()(uint8_t* p) const { std::free(p); }
};

TEST(ReadQueue, ReadsPiecesInAnyOrderToTheEndOfTheFile) {
  const TempDir dir;
  std::string bytes(5 * kDirectAlignment + 100, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 + i / 4096);
  ASSERT_TRUE(WriteFileAtomic(dir / "file", bytes).ok());
  auto file = DirectFile::Open(dir / "file");
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->size(), bytes.size());

  constexpr size_t kPieces = 6;
  const std::unique_ptr<uint8_t, Free> memory(
      static_cast<uint8_t*>(std::aligned_alloc(kDirectAlignment, kPieces * kDirectAlignment)));
  const auto queue = NewReadQueue(kPieces);
  for (size_t i = kPieces; i-- > 0;) {
    const std::span<uint8_t> piece(memory.get() + i * kDirectAlignment, kDirectAlignment);
    ASSERT_TRUE(queue->Submit(file->fd(), i * kDirectAlignment, piece, i).ok());
  }
  std::vector<bool> seen(kPieces, false);
  for (size_t i = 0; i < kPieces; ++i) {
    const auto done = queue->Next(true);
    ASSERT_TRUE(done.ok());
    ASSERT_LT(done->tag, kPieces);
    EXPECT_FALSE(seen[done->tag]);
    seen[done->tag] = true;
    EXPECT_EQ(done->bytes, done->tag == 5 ? 100 : static_cast<int64_t>(kDirectAlignment));
  }
  EXPECT_EQ(std::string(memory.get(), memory.get() + bytes.size()), bytes);
  EXPECT_EQ(queue->Next(false)->tag, ReadQueue::kNothing);
}

TEST(DirectFile, SaysWhichFileIsMissing) {
  const auto file = DirectFile::Open("/nonexistent/weights");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().code, ErrorCode::kNotFound);
  EXPECT_NE(file.error().message.find("/nonexistent/weights"), std::string::npos);
}

}  // namespace
}  // namespace cachalot::io
