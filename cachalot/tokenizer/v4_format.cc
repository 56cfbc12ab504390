// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/v4_format.h"

#include <array>
#include <vector>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/tokenizer/byte_alphabet.h"

namespace cachalot::tokenizer {
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

// Every byte in the order of V4's ids 3..258: the printable ones, then the others.
std::vector<uint8_t> BytesInOrder() {
  const auto printable = [](uint32_t b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  std::vector<uint8_t> bytes;
  for (const bool wanted : {true, false}) {
    for (uint32_t b = 0; b < kNumBytes; ++b) {
      if (printable(b) == wanted) bytes.push_back(static_cast<uint8_t>(b));
    }
  }
  return bytes;
}

std::string Symbols(std::string_view bytes) {
  std::string symbols;
  for (const char c : bytes) symbols += ByteSymbol(static_cast<uint8_t>(c));
  return symbols;
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

uint32_t MinV4Vocab() { return kFirstSpecials.size() + kNumBytes + kLastSpecials.size(); }

std::string V4TokenizerJson(std::span<const BytePair> merges) {
  Json added = Json::array();
  Json ids = Json::object();
  // Appended without the look-up that would make a large vocabulary quadratic: all are distinct.
  auto& id_entries = ids.get_ref<Json::object_t&>();
  uint32_t next = 0;
  for (const char* content : kFirstSpecials) added.push_back(AddedToken(next++, content));
  for (const uint8_t byte : BytesInOrder()) id_entries.emplace_back(ByteSymbol(byte), next++);
  Json lines = Json::array();
  for (const auto& [left, right] : merges) {
    const std::string left_symbols = Symbols(left);
    const std::string right_symbols = Symbols(right);
    lines.push_back(StrCat(left_symbols, " ", right_symbols));
    id_entries.emplace_back(left_symbols + right_symbols, next++);
  }
  for (const char* content : kLastSpecials) added.push_back(AddedToken(next++, content));

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
        {"merges", lines}}}};
  return json.dump() + "\n";
}

}  // namespace cachalot::tokenizer
