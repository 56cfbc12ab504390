// SPDX-License-Identifier: Apache-2.0
// A tokenizer of any size in V4's format. [chat.md 2]
#include <string>
#include <vector>

#include "cachalot/base/check.h"
#include "cachalot/model/synth.h"
#include "cachalot/tokenizer/v4_format.h"

namespace cachalot::model {
namespace {

// Pairs of letters, then pair + letter, then pair + pair: every product is a new string.
std::vector<tokenizer::BytePair> LetterMerges(size_t count) {
  constexpr size_t kLetters = 26;
  const auto letter = [](size_t i) { return std::string(1, static_cast<char>('a' + i)); };
  std::vector<tokenizer::BytePair> merges;
  std::vector<std::string> pairs;
  for (size_t i = 0; i < kLetters * kLetters; ++i) {
    const std::string left = letter(i / kLetters);
    const std::string right = letter(i % kLetters);
    merges.emplace_back(left, right);
    pairs.push_back(left + right);
  }
  for (size_t i = 0; i < pairs.size() * kLetters && merges.size() < count; ++i) {
    merges.emplace_back(pairs[i / kLetters], letter(i % kLetters));
  }
  for (size_t i = 0; i < pairs.size() * pairs.size() && merges.size() < count; ++i) {
    merges.emplace_back(pairs[i / pairs.size()], pairs[i % pairs.size()]);
  }
  merges.resize(count);
  return merges;
}

}  // namespace

uint32_t MinSynthVocab() { return tokenizer::MinV4Vocab(); }

std::string SynthTokenizerJson(uint32_t vocab) {
  CACHALOT_CHECK(vocab >= MinSynthVocab());
  return tokenizer::V4TokenizerJson(LetterMerges(vocab - MinSynthVocab()));
}

}  // namespace cachalot::model
