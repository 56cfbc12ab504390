// SPDX-License-Identifier: Apache-2.0
#include "cachalot/stream/piece_reader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <string>

#include "cachalot/base/temp_dir.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/stream/faulty_queue.h"
#include "cachalot/stream/page_memory.h"

namespace cachalot::stream {
namespace {

constexpr uint64_t kPage = io::kDirectAlignment;

class PieceReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    bytes_.resize(40 * kPage + 77);
    for (size_t i = 0; i < bytes_.size(); ++i) {
      bytes_[i] = static_cast<char>(i * 131 + i / kPage);
    }
    ASSERT_TRUE(io::WriteFileAtomic(dir_ / "a", bytes_).ok());
    ASSERT_TRUE(io::WriteFileAtomic(dir_ / "b", bytes_).ok());
    memory_ = PageMemory::Allocate(100 * kPage).value();
  }

  std::vector<FileCopies> Files(bool mirror = false) {
    std::vector<FileCopies> files(1);
    files[0].copies.push_back(io::DirectFile::Open(dir_ / "a").value());
    if (mirror) files[0].copies.push_back(io::DirectFile::Open(dir_ / "b").value());
    return files;
  }
  static ReaderOptions Options(FatePlan plan, uint32_t depth = 4) {
    return {.depth = depth, .piece_bytes = 2 * kPage, .new_queue = [plan](uint32_t d) {
              return std::make_unique<FaultyQueue>(d, plan, 1);
            }};
  }
  bool Holds(uint64_t at, uint64_t begin, uint64_t end) const {
    return std::string(memory_.data() + at, memory_.data() + at + (end - begin)) ==
           bytes_.substr(begin, end - begin);
  }

  const FatePlan fine_ = [](uint64_t, uint64_t) { return ReadFate{}; };
  // A batch of two runs, the second to the end of the file.
  const std::vector<stream::Run> runs_ = {{0, kPage, 8 * kPage + 5, 0},
                                          {0, 38 * kPage, 40 * kPage + 77, 8 * kPage}};
  TempDir dir_;
  std::string bytes_;
  PageMemory memory_;
};

TEST_F(PieceReaderTest, ReadsRunsToTheirPlaces) {
  PieceReader reader(Files(), 1, Options(fine_));
  reader.Start(0, runs_, memory_.data(), PieceReader::Urgency::kDemand);
  const auto finished = reader.Poll(true);
  ASSERT_TRUE(finished.has_value());
  EXPECT_FALSE(finished->error.has_value());
  EXPECT_TRUE(Holds(0, kPage, 8 * kPage + 5));
  EXPECT_TRUE(Holds(8 * kPage, 38 * kPage, 40 * kPage + 77));
  EXPECT_FALSE(reader.Poll(true).has_value());
}

TEST_F(PieceReaderTest, TriesAgain) {
  std::map<uint64_t, int> tries;
  const auto plan = [&](uint64_t, uint64_t offset) {
    const int attempt = tries[offset]++;
    return ReadFate{.error = attempt == 0 ? EIO : 0, .cut = attempt == 1};
  };
  PieceReader reader(Files(), 1, Options(plan));
  reader.Start(0, runs_, memory_.data(), PieceReader::Urgency::kDemand);
  const auto finished = reader.Poll(true);
  ASSERT_TRUE(finished && !finished->error);
  EXPECT_TRUE(Holds(0, kPage, 8 * kPage + 5));
  EXPECT_EQ(reader.stats().retries, 2 * tries.size());
}

TEST_F(PieceReaderTest, SaysWhatCouldNotBeRead) {
  const auto plan = [](uint64_t, uint64_t offset) {
    return ReadFate{.error = offset == 5 * kPage ? EIO : 0};
  };
  PieceReader reader(Files(), 2, Options(plan));
  reader.Start(0, runs_, memory_.data(), PieceReader::Urgency::kDemand);
  const auto finished = reader.Poll(true);
  ASSERT_TRUE(finished && finished->error);
  EXPECT_EQ(finished->error->code, ErrorCode::kIo);
  for (const std::string& part : {dir_ / "a", std::string("20480"), std::string("3 times"),
                                  std::string("--weights-mirror")}) {
    EXPECT_NE(finished->error->message.find(part), std::string::npos) << part;
  }
  // The reader goes on.
  reader.Start(1, std::span(runs_).subspan(1), memory_.data(), PieceReader::Urgency::kDemand);
  const auto second = reader.Poll(true);
  EXPECT_TRUE(second && second->batch == 1 && !second->error);
}

TEST_F(PieceReaderTest, AMirrorTakesOver) {
  auto files = Files(/*mirror=*/true);
  ASSERT_EQ(truncate((dir_ / "a").c_str(), 3 * kPage), 0);
  PieceReader reader(std::move(files), 1, Options(fine_));
  reader.Start(0, runs_, memory_.data(), PieceReader::Urgency::kDemand);
  const auto finished = reader.Poll(true);
  ASSERT_TRUE(finished && !finished->error);
  EXPECT_TRUE(Holds(0, kPage, 8 * kPage + 5));
  EXPECT_TRUE(Holds(8 * kPage, 38 * kPage, 40 * kPage + 77));
  EXPECT_GT(reader.stats().retries, 0u);
}

TEST_F(PieceReaderTest, TwoDrivesShareTheReads) {
  PieceReader reader(Files(/*mirror=*/true), 1, Options(fine_));
  reader.Start(0, runs_, memory_.data(), PieceReader::Urgency::kDemand);
  const auto finished = reader.Poll(true);
  ASSERT_TRUE(finished && !finished->error);
  EXPECT_TRUE(Holds(0, kPage, 8 * kPage + 5));
  const std::vector<uint64_t>& bytes = reader.stats().copy_bytes;
  ASSERT_EQ(bytes.size(), 2u);
  EXPECT_GE(bytes[0], 4 * kPage);
  EXPECT_GE(bytes[1], 4 * kPage);
  EXPECT_EQ(bytes[0] + bytes[1], reader.stats().bytes);
}

TEST_F(PieceReaderTest, GuessesReadNoMoreThanTheyMay) {
  PieceReader reader(Files(), 2, Options(fine_));
  reader.Start(0, runs_, memory_.data(), PieceReader::Urgency::kGuess);
  EXPECT_FALSE(reader.Poll(true).has_value());  // nothing allowed, nothing in flight
  EXPECT_EQ(reader.stats().pieces, 0u);
  reader.SetAllowance(2 * kPage);
  EXPECT_FALSE(reader.Poll(true).has_value());
  EXPECT_EQ(reader.stats().pieces, 1u);
  reader.Promote(0);
  const auto finished = reader.Poll(true);
  ASSERT_TRUE(finished && !finished->error);
  EXPECT_TRUE(Holds(0, kPage, 8 * kPage + 5));
}

TEST_F(PieceReaderTest, DroppedGuessesEnd) {
  PieceReader reader(Files(), 3, Options(fine_));
  reader.Start(0, runs_, memory_.data(), PieceReader::Urgency::kGuess);
  EXPECT_EQ(reader.Drop(0), PieceReader::Dropped::kAtOnce);
  reader.Start(0, runs_, memory_.data(), PieceReader::Urgency::kGuess);
  reader.Start(1, runs_, memory_.data() + 50 * kPage, PieceReader::Urgency::kDemand);
  reader.SetAllowance(2 * kPage);
  while (reader.Poll(true)) {
  }
  reader.Start(2, std::span(runs_).first(1), memory_.data(), PieceReader::Urgency::kGuess);
  EXPECT_EQ(reader.Drop(2), PieceReader::Dropped::kAtOnce);
}

}  // namespace
}  // namespace cachalot::stream
