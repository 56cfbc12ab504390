// SPDX-License-Identifier: Apache-2.0
// A tokenizer of any size in V4's format. [chat.md 2]
#include <array>
#include <string>
#include <vector>

#include "cachalot/base/check.h"
#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/model/synth.h"

namespace cachalot::model {
namespace {

// U+FF5C and U+2581, the bars and blanks of V4's special tokens.
#define BAR "\xEF\xBD\x9C"
#define GAP "\xE2\x96\x81"
constexpr std::array<const char*, 3> kFirstSpecials = {
    "<" BAR "begin" GAP "of" GAP "sentence" BAR ">", "<" BAR "end" GAP "of" GAP "sentence" BAR ">",
    "<" BAR GAP "pad" GAP BAR ">"};
constexpr std::array<const char*, 16> kLastSpecials = {"<" BAR "fim" GAP "hole" BAR ">",
                                                       "<" BAR "fim" GAP "begin" BAR ">",
                                                       "<" BAR "fim" GAP "end" BAR ">",
                                                       "<" BAR "User" BAR ">",
                                                       "<" BAR "Assistant" BAR ">",
                                                       "<think>",
                                                       "</think>",
                                                       BAR "DSML" BAR,
                                                       "<" BAR "latest_reminder" BAR ">",
                                                       "<" BAR "action" BAR ">",
                                                       "<" BAR "query" BAR ">",
                                                       "<" BAR "authority" BAR ">",
                                                       "<" BAR "domain" BAR ">",
                                                       "<" BAR "title" BAR ">",
                                                       "<" BAR "read_url" BAR ">",
                                                       "<" BAR "extracted_url" BAR ">"};
#undef BAR
#undef GAP

constexpr uint32_t kNumBytes = 256;

// U+4E00..U+9FA5 hiragana katakana; written as UTF-8 bytes since sources are ASCII.
constexpr const char* kCjkRun =
    "[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+";
constexpr const char* kWordSplit =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"
    "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

std::string Utf8(uint32_t code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xC0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 63))};
}

// The GPT-2 alphabet in the order of V4's ids 3..258.
std::vector<std::string> ByteAlphabet() {
  const auto printable = [](uint32_t b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  std::vector<std::string> alphabet;
  for (uint32_t b = 0; b < kNumBytes; ++b) {
    if (printable(b)) alphabet.push_back(Utf8(b));
  }
  for (uint32_t b = 0, next = 0x100; b < kNumBytes; ++b) {
    if (!printable(b)) alphabet.push_back(Utf8(next++));
  }
  return alphabet;
}

// Pairs of letters, then pair + letter, then pair + pair: every product is a new string.
std::vector<std::pair<std::string, std::string>> LetterMerges(size_t count) {
  constexpr size_t kLetters = 26;
  const auto letter = [](size_t i) { return std::string(1, static_cast<char>('a' + i)); };
  std::vector<std::pair<std::string, std::string>> merges;
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

Json Split(const char* pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Json ByteLevel(bool trim_offsets) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", trim_offsets},
          {"use_regex", false}};
}

Json AddedToken(uint32_t id, const char* content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

}  // namespace

uint32_t MinSynthVocab() { return kFirstSpecials.size() + kNumBytes + kLastSpecials.size(); }

std::string SynthTokenizerJson(uint32_t vocab) {
  CACHALOT_CHECK(vocab >= MinSynthVocab());
  Json added = Json::array();
  Json ids = Json::object();
  // Appended without the look-up that would make a large vocabulary quadratic: all are distinct.
  auto& id_entries = ids.get_ref<Json::object_t&>();
  uint32_t next = 0;
  for (const char* content : kFirstSpecials) added.push_back(AddedToken(next++, content));
  for (const std::string& byte : ByteAlphabet()) id_entries.emplace_back(byte, next++);
  Json merges = Json::array();
  for (const auto& [left, right] : LetterMerges(vocab - MinSynthVocab())) {
    merges.push_back(StrCat(left, " ", right));
    id_entries.emplace_back(left + right, next++);
  }
  for (const char* content : kLastSpecials) added.push_back(AddedToken(next++, content));
  CACHALOT_CHECK(next == vocab);

  const Json json = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", {{"type", "Sequence"}, {"normalizers", Json::array()}}},
      {"pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers",
         {Split("\\p{N}{1,3}"), Split(kCjkRun), Split(kWordSplit), ByteLevel(true)}}}},
      {"post_processor", ByteLevel(false)},
      {"decoder", ByteLevel(true)},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", ids},
        {"merges", merges}}}};
  return json.dump() + "\n";
}

}  // namespace cachalot::model
