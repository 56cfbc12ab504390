// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/bpe_trainer.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "cachalot/base/rng.h"
#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot::tokenizer {
namespace {

std::vector<BytePair> Learn(std::string_view text, uint32_t merges) {
  BpeTrainer trainer;
  trainer.Add(text);
  auto learned = trainer.Train({.vocab_size = MinV4Vocab() + merges}, {});
  EXPECT_TRUE(learned.ok());
  return *learned;
}

TEST(BpeTrainer, MostFrequentPairFirstAndTiesByIds) {
  // " a", "ab" and "cd" are there 5 times each, " c" 4 times; " " is the lowest byte. Then " a" has
  // id 256, above "c".
  const auto merges = Learn("cd cd cd cd cd ab ab ab ab ab", 2);
  ASSERT_EQ(merges.size(), 2u);
  EXPECT_EQ(merges[0], BytePair(" ", "a"));
  EXPECT_EQ(merges[1], BytePair("c", "d"));
}

TEST(BpeTrainer, OverlappingPairsAreCountedAndMergedFromTheLeft) {
  const auto merges = Learn("xaaaaa xaaaaa xaaaaa", 3);
  ASSERT_EQ(merges.size(), 3u);
  EXPECT_EQ(merges[0], BytePair("a", "a"));  // four times a word, and leaves x aa aa a
  EXPECT_EQ(merges[1], BytePair("x", "aa"));
  EXPECT_EQ(merges[2], BytePair("aa", "a"));
}

// Against recounting everything after every merge.
TEST(BpeTrainer, MatchesRecounting) {
  std::string text;
  for (uint64_t i = 0; i < 400; ++i) {
    const uint64_t length = 1 + CounterRandom(1, i, 0) % 7;
    for (uint64_t k = 0; k < length; ++k) {
      text += static_cast<char>('a' + CounterRandom(2, i, k) % 4);
    }
    text += ' ';
  }
  const auto got = Learn(text, 60);

  std::vector<std::vector<std::string>> words;  // V4 cuts " word" with its space in front
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find(' ', at + 1), text.size());
    words.emplace_back();
    for (const char c : text.substr(at, end - at)) words.back().emplace_back(1, c);
    at = end;
  }
  std::map<std::string, size_t> ids;
  for (int b = 0; b < 256; ++b) ids[std::string(1, static_cast<char>(b))] = static_cast<size_t>(b);
  for (size_t m = 0; m < got.size(); ++m) {
    std::map<std::pair<size_t, size_t>, uint64_t> counts;
    for (const auto& word : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{ids[word[i]], ids[word[i + 1]]}];
    }
    std::pair<size_t, size_t> best;
    uint64_t count = 0;
    for (const auto& [pair, c] : counts) {
      if (c > count) {
        best = pair;
        count = c;
      }
    }
    const std::pair<size_t, size_t> chosen{ids[got[m].first], ids[got[m].second]};
    ASSERT_EQ(counts[chosen], count) << m << " " << got[m].first << "+" << got[m].second;
    const std::string product = got[m].first + got[m].second;
    if (chosen != best) {
      // The only reason to pass over it: its spelling exists already.
      std::string other;
      for (const auto& [token, id] : ids) {
        if (id == best.first) other = token + other;
        if (id == best.second) other += token;
      }
      ASSERT_NE(product, other);
    }
    ids[product] = 256 + m;
    for (auto& word : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] == got[m].first && word[i + 1] == got[m].second) {
          word[i] = product;
          word.erase(word.begin() + static_cast<long>(i) + 1);
        }
      }
    }
  }
}

TEST(BpeTrainer, OrderOfTextsDoesNotMatter) {
  BpeTrainer one, two;
  one.Add("the cat sat on the mat");
  one.Add("a cat and a hat");
  two.Add("a cat and a hat");
  two.Add("the cat sat on the mat");
  const BpeTrainerOptions options{.vocab_size = MinV4Vocab() + 20};
  EXPECT_EQ(*one.Train(options, {}), *two.Train(options, {}));
}

TEST(BpeTrainer, ResultLoadsAndRoundTripsAnyBytes) {
  const std::string corpus =
      "Call me Ishmael. Some years ago - never mind how long precisely - 1234567 whales, "
      "caf\xC3\xA9, \xE4\xB8\xAD\xE6\x96\x87; Call me again. Some whales never mind.\n\n";
  const auto merges = Learn(corpus + corpus, 64);
  const auto tokenizer = Tokenizer::FromJson(V4TokenizerJson(merges), "trained");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->vocab_size(), MinV4Vocab() + merges.size());
  EXPECT_EQ((*tokenizer)->FindSpecial("<think>").has_value(), true);
  std::string bytes = corpus + "<think>";
  for (int i = 0; i < 600; ++i) {
    bytes += static_cast<char>(CounterRandom(3, static_cast<uint64_t>(i), 0));
  }
  const auto ids = (*tokenizer)->Encode(bytes, true);
  EXPECT_EQ((*tokenizer)->Decode(ids), bytes);
  EXPECT_LT((*tokenizer)->Encode(corpus, true).size(), corpus.size() * 2 / 3);
}

TEST(BpeTrainer, RefusesTooSmallVocabulariesAndStops) {
  BpeTrainer trainer;
  trainer.Add("aa aa bb bb");
  const auto small = trainer.Train({.vocab_size = 100}, {});
  ASSERT_FALSE(small.ok());
  EXPECT_NE(small.error().message.find("expected at least"), std::string::npos);
  const auto stopped =
      trainer.Train({.vocab_size = MinV4Vocab() + 9}, [](uint64_t, uint64_t) { return false; });
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  // Pairs run out: " a", "aa", " b", "bb" and what they make.
  EXPECT_LT(trainer.Train({.vocab_size = MinV4Vocab() + 900}, {})->size(), 20u);
}

}  // namespace
}  // namespace cachalot::tokenizer
