// SPDX-License-Identifier: Apache-2.0
// From documents to sequences: samples, shards, packing, reading.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/io/checksum.h"
#include "cachalot/tokenizer/v4_format.h"
#include "cachalot/train/documents.h"
#include "cachalot/train/packed_reader.h"
#include "cachalot/train/test_support.h"

namespace cachalot::train {
namespace {

namespace fs = std::filesystem;

std::shared_ptr<const tokenizer::Tokenizer> Bytes() {
  auto t = tokenizer::Tokenizer::FromJson(tokenizer::V4TokenizerJson({}), "bytes");
  EXPECT_TRUE(t.ok());
  return *t;
}

SampleMaker Maker(const SampleOptions& options = {}) {
  auto maker = SampleMaker::Create(Bytes(), options);
  EXPECT_TRUE(maker.ok());
  return std::move(maker).value();
}

// What of a sample is learned, as text.
std::string Learned(const Sample& sample) {
  std::vector<uint32_t> ids;
  for (size_t i = 0; i < sample.ids.size(); ++i) {
    if (sample.is_target[i] != 0) ids.push_back(sample.ids[i]);
  }
  return Bytes()->Decode(ids);
}

TEST(Samples, PlainTextKeepsMarkersAsText) {
  const auto sample = Maker().Make({.text = "a<think>b"}, 0);
  ASSERT_TRUE(sample.ok());
  EXPECT_EQ(sample->ids.size(), 2 + 9u);  // bytes, BOS and EOS
  EXPECT_EQ(sample->ids.front(), 0u);
  EXPECT_EQ(sample->ids.back(), 1u);
  EXPECT_EQ(sample->is_target[0], 0);
  EXPECT_EQ(Learned(*sample), "a<think>b<\uFF5Cend\u2581of\u2581sentence\uFF5C>");
}

TEST(Samples, ChatsLearnTheAnswersOnly) {
  const auto document = DocumentFromJson(
      R"({"thinking_mode": "chat", "messages": [{"role": "user", "content": "one"},
          {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"},
          {"role": "assistant", "content": "four"}]})",
      "x:1");
  ASSERT_TRUE(document.ok()) << document.error().message;
  const auto sample = Maker().Make(*document, 0);
  ASSERT_TRUE(sample.ok());
  const std::string eos = "<\uFF5Cend\u2581of\u2581sentence\uFF5C>";
  EXPECT_EQ(Learned(*sample), "two" + eos + "four" + eos);
  EXPECT_EQ(Bytes()->Decode(sample->ids), document->text);
}

TEST(Samples, FillInTheMiddle) {
  const auto document =
      DocumentFromJson(R"({"prefix": "ab", "suffix": "ef", "middle": "cd"})", "x:1");
  ASSERT_TRUE(document.ok());
  const auto sample = Maker().Make(*document, 0);
  ASSERT_TRUE(sample.ok());
  EXPECT_EQ(Bytes()->Decode(sample->ids),
            "<\uFF5Cbegin\u2581of\u2581sentence\uFF5C><\uFF5Cfim\u2581begin\uFF5C>ab<"
            "\uFF5Cfim\u2581hole\uFF5C>ef<\uFF5Cfim\u2581end\uFF5C>cd<"
            "\uFF5Cend\u2581of\u2581sentence\uFF5C>");
  // Drawn cuts lose nothing, and do not split the two bytes of a character.
  const SampleMaker always = Maker({.fill_rate = 1.0});
  const std::string text = "caf\xC3\xA9 caf\xC3\xA9 caf\xC3\xA9";
  std::set<std::string> seen;
  for (uint64_t i = 0; i < 20; ++i) {
    const auto cut = always.Make({.text = text}, i);
    ASSERT_TRUE(cut.ok());
    EXPECT_EQ(cut->ids.size(), text.size() + 5);
    seen.insert(Bytes()->Decode(cut->ids));
  }
  EXPECT_GT(seen.size(), 10u);
}

TEST(Samples, BadLinesAreRefusedByName) {
  const auto message = [](std::string_view line) {
    const auto document = DocumentFromJson(line, "d.jsonl:7");
    EXPECT_FALSE(document.ok()) << line;
    return document.ok() ? "" : document.error().message;
  };
  EXPECT_TRUE(message("{").starts_with("d.jsonl:7"));
  EXPECT_EQ(message("[1]"), "d.jsonl:7: is no JSON object");
  EXPECT_EQ(message(R"({"text": 3})"), "d.jsonl:7: text is no string");
  EXPECT_EQ(message(R"({"middle": "x", "prefix": "y"})"), "d.jsonl:7: suffix is missing");
  EXPECT_NE(
      message(R"({"messages": [{"role": "user", "content": "x"}]})").find("expected assistant"),
      std::string::npos);
  EXPECT_TRUE(message(R"({"messages": [{"role": "assistnta", "content": "x"}]})")
                  .starts_with("d.jsonl:7: "));
  EXPECT_NE(message(R"({"body": ""})").find("has none of text"), std::string::npos);
}

// Samples of given lengths; token i of sample s is a function of both.
Sample NumberedSample(uint64_t s, size_t length) {
  Sample sample;
  for (size_t i = 0; i < length; ++i) {
    sample.ids.push_back(static_cast<uint32_t>(CounterRandom(s, i, 0) % 1000));
    sample.is_target.push_back(i > 0 && CounterRandom(s, i, 1) % 4 != 0 ? 1 : 0);
  }
  return sample;
}

size_t LengthOf(uint64_t s) { return 2 + CounterRandom(9, s, 0) % 300; }

std::shared_ptr<const Dataset> WriteDataset(const std::string& dir, uint64_t samples) {
  auto writer = DatasetWriter::Create(dir, 1000, 42);
  EXPECT_TRUE(writer.ok());
  for (uint64_t s = 0; s < samples; ++s) {
    EXPECT_TRUE(writer->Add(NumberedSample(s, LengthOf(s))).ok());
  }
  EXPECT_TRUE(writer->Finish().ok());
  auto set = Dataset::Open(dir);
  EXPECT_TRUE(set.ok()) << (set.ok() ? "" : set.error().message);
  return *set;
}

TEST(Dataset, ReadsBackWhatWasWritten) {
  TempDir dir;
  const auto set = WriteDataset(dir / "set", 50);
  ASSERT_EQ(set->num_samples(), 50u);
  EXPECT_EQ(set->tokenizer_checksum(), 42u);
  for (uint64_t s = 0; s < 50; ++s) {
    Sample got;
    set->Read(s, 0, 1000, got);
    const Sample want = NumberedSample(s, LengthOf(s));
    EXPECT_EQ(got.ids, want.ids);
    EXPECT_EQ(got.is_target, want.is_target);
    EXPECT_EQ(set->SampleLength(s), want.ids.size());
  }
}

TEST(Dataset, RefusesFullFoldersAndMissingIndexes) {
  TempDir dir;
  WriteDataset(dir / "set", 3);
  EXPECT_FALSE(DatasetWriter::Create(dir / "set", 1000, 42).ok());
  const auto missing = Dataset::Open(dir / "none");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message.find("cachalot data build"), std::string::npos);
  auto abandoned = DatasetWriter::Create(dir / "gone", 1000, 42);
  ASSERT_TRUE(abandoned.ok());
  abandoned->Abandon();
  EXPECT_FALSE(fs::exists(dir / "gone"));
}

TEST(TokenShard, EveryCutAndEveryFlippedBitIsRefused) {
  for (const uint32_t vocab : {1000u, 100000u}) {
    TokenShardBuilder builder(vocab, 7);
    builder.Add(NumberedSample(0, 5));
    builder.Add(NumberedSample(1, 9));
    const std::string bytes = builder.Take();
    const auto parse = [](const std::string& b) {
      return TokenShard::Parse("s", reinterpret_cast<const uint8_t*>(b.data()), b.size());
    };
    ASSERT_TRUE(parse(bytes).ok());
    for (size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(parse(bytes.substr(0, n)).ok()) << n;
    EXPECT_FALSE(parse(bytes + std::string(8, '\0')).ok());
    for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      std::string bad = bytes;
      bad[bit / 8] = static_cast<char>(static_cast<uint8_t>(bad[bit / 8]) ^ (1u << (bit % 8)));
      EXPECT_FALSE(parse(bad).ok()) << bit;
    }
  }
}

TEST(TokenShard, OtherVersionsAreRefusedByNumber) {
  TokenShardBuilder builder(1000, 7);
  builder.Add(NumberedSample(0, 5));
  std::string bytes = builder.Take();
  bytes[8] = 9;
  const auto shard =
      TokenShard::Parse("s", reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  ASSERT_FALSE(shard.ok());
  EXPECT_EQ(shard.error().code, ErrorCode::kVersionMismatch);
  EXPECT_NE(shard.error().message.find("version 9"), std::string::npos);
}

TEST(Packing, KeepsEveryTokenOnceAndCutsOnlyWhatIsTooLong) {
  constexpr uint32_t kRow = 128;
  constexpr uint64_t kSamples = 2000;
  const PackedRows rows = PackBestFit(kSamples, LengthOf, kRow);
  std::map<uint64_t, std::vector<Piece>> of_sample;
  uint64_t tokens = 0;
  for (uint64_t r = 0; r < rows.num_rows(); ++r) {
    uint64_t sum = 0;
    for (const Piece& piece : rows.row(r)) {
      sum += piece.length;
      of_sample[piece.sample].push_back(piece);
    }
    ASSERT_GE(sum, 2u);
    ASSERT_LE(sum, kRow);
    tokens += sum;
  }
  for (uint64_t s = 0; s < kSamples; ++s) {
    auto& pieces = of_sample[s];
    std::sort(pieces.begin(), pieces.end(),
              [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
    uint64_t at = 0;
    for (const Piece& piece : pieces) {
      ASSERT_EQ(piece.begin, at);
      at += piece.length;
    }
    EXPECT_LE(LengthOf(s) - at, 1u);
    EXPECT_EQ(pieces.size(), LengthOf(s) / kRow + (LengthOf(s) % kRow >= 2 ? 1 : 0));
  }
  // Best fit decreasing wastes little: what matters for speed.
  EXPECT_GT(static_cast<double>(tokens), 0.99 * static_cast<double>(rows.num_rows() * kRow));
}

TEST(PackedReader, TargetsFollowTheSampleAcrossCuts) {
  TempDir dir;
  const auto set = WriteDataset(dir / "set", 40);
  PackedReader reader(set, 1);
  PackedSequence sequence;
  reader.Next(64, sequence);
  const uint64_t rows = reader.num_rows();
  uint64_t last_tokens = 0, total = 0;
  for (uint64_t r = 0; r < rows; ++r) {
    if (r > 0) reader.Next(64, sequence);
    ASSERT_EQ(sequence.starts[0], 0u);
    for (size_t i = 0; i < sequence.tokens.size(); ++i) {
      const bool last_of_row = i + 1 == sequence.tokens.size();
      const bool before_start =
          std::count(sequence.starts.begin(), sequence.starts.end(), i + 1) > 0;
      if (!last_of_row && !before_start) {
        ASSERT_EQ(sequence.next[i], sequence.tokens[i + 1]);
      }
      if (sequence.targets[i] != kNoToken) {
        ASSERT_EQ(sequence.targets[i], sequence.next[i]);
      }
      if (sequence.next[i] == kNoToken) {
        ++last_tokens;
        ASSERT_EQ(sequence.mtp_targets[i], kNoToken);
      }
    }
    total += sequence.tokens.size();
  }
  // One last token a sample, except where a rest of one token was dropped with it.
  uint64_t dropped = 0;
  for (uint64_t s = 0; s < 40; ++s) dropped += LengthOf(s) % 64 == 1 ? 1 : 0;
  EXPECT_EQ(last_tokens, 40 - dropped);
  EXPECT_EQ(total, set->num_tokens() - dropped);
  EXPECT_EQ(reader.position().epoch, 0u);
}

TEST(PackedReader, ResumesAtTheExactSequence) {
  TempDir dir;
  const auto set = WriteDataset(dir / "set", 60);
  // 64, then a longer stage: several epochs of each.
  const auto length_at = [](int i) { return i < 400 ? 64u : 256u; };
  PackedReader straight(set, 5);
  std::vector<PackedSequence> want(700);
  std::vector<DataPosition> positions;
  for (int i = 0; i < 700; ++i) {
    positions.push_back(straight.position());
    straight.Next(length_at(i), want[static_cast<size_t>(i)]);
  }
  EXPECT_GT(positions.back().epoch, 4u);
  for (const int from : {0, 1, 137, 399, 400, 401, 699}) {
    PackedReader resumed(set, 5);
    ASSERT_TRUE(resumed.Seek(positions[static_cast<size_t>(from)]).ok());
    PackedSequence got;
    for (int i = from; i < std::min(from + 200, 700); ++i) {
      resumed.Next(length_at(i), got);
      ASSERT_EQ(got.tokens, want[static_cast<size_t>(i)].tokens) << from << " " << i;
      ASSERT_EQ(got.mtp_targets, want[static_cast<size_t>(i)].mtp_targets);
    }
  }
}

TEST(PackedReader, EpochsAndSeedsDifferInOrder) {
  TempDir dir;
  const auto set = WriteDataset(dir / "set", 60);
  std::set<std::vector<uint32_t>> first;
  for (const uint64_t seed : {1u, 2u, 3u}) {
    PackedReader reader(set, seed);
    PackedSequence sequence;
    reader.Next(64, sequence);
    first.insert(sequence.tokens);
    for (uint64_t r = 1; r < reader.num_rows(); ++r) reader.Next(64, sequence);
    reader.Next(64, sequence);
    EXPECT_EQ(reader.position(), (DataPosition{1, 1, 64}));
    first.insert(sequence.tokens);
  }
  EXPECT_GE(first.size(), 5u);
}

TEST(PackedReader, RefusesPositionsTheDataCannotHave) {
  TempDir dir;
  const auto set = WriteDataset(dir / "set", 5);
  PackedReader reader(set, 1);
  EXPECT_FALSE(reader.Seek({0, 1000, 64}).ok());
  EXPECT_FALSE(reader.Seek({0, 0, 1}).ok());
  EXPECT_TRUE(reader.Seek({3, 0, 64}).ok());
}

}  // namespace
}  // namespace cachalot::train
