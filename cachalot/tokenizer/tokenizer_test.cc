// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/tokenizer.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <ctime>

#include "cachalot/tokenizer/test_tokenizers.h"

namespace cachalot::tokenizer {
namespace {

using Ids = std::vector<uint32_t>;

std::shared_ptr<const Tokenizer> Make(const Json& json) {
  auto tokenizer = FromJson(json);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  return tokenizer.ok() ? *tokenizer : nullptr;
}

Json Added(uint32_t id, const std::string& content, bool normalized = false) {
  return {{"id", id}, {"content", content}, {"special", true}, {"normalized", normalized}};
}

Json Sequence(std::vector<Json> steps, bool use_regex = false) {
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", use_regex}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

Json Split(const std::string& regex) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

TEST(Bpe, LowestRankFirstLeftmostOnTies) {
  const auto t = Make(SmallTokenizerJson({"b c", "a b", "a a"}));
  EXPECT_EQ(t->Encode("abc", true), (Ids{'a', 256}));  // not ab + c
  EXPECT_EQ(t->Encode("aaa", true), (Ids{258, 'a'}));  // the left pair
  EXPECT_EQ(t->Encode("aaaa", true), (Ids{258, 258}));
  EXPECT_EQ(t->Encode("", true), Ids{});
  EXPECT_EQ(t->Encode("x", true), Ids{'x'});
}

TEST(Bpe, ProductsMergeOn) {
  const auto t = Make(SmallTokenizerJson({"a b", "ab c", "d abc"}));
  EXPECT_EQ(t->Encode("dabcabc", true), (Ids{258, 257}));
}

TEST(Bpe, IgnoreMergesTakesWholePieces) {
  Json json = SmallTokenizerJson({"a b", "b c"});
  json["model"]["vocab"]["abc"] = 258;
  EXPECT_EQ(Make(json)->Encode("abc", true), (Ids{256, 'c'}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(Make(json)->Encode("abc", true), Ids{258});
  EXPECT_EQ(Make(json)->Encode("abcc", true), (Ids{256, 'c', 'c'}));
}

// The definition, in quadratic time.
Ids MergeSlowly(const std::string& text, const std::vector<std::string>& merges) {
  std::vector<std::string> parts;
  for (const char c : text) parts.emplace_back(1, c);
  for (;;) {
    size_t best = merges.size(), at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const std::string pair = parts[i] + " " + parts[i + 1];
      const auto rank =
          static_cast<size_t>(std::find(merges.begin(), merges.end(), pair) - merges.begin());
      if (rank < best) best = rank, at = i;
    }
    if (best == merges.size()) break;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
  Ids ids;
  for (const std::string& part : parts) {
    uint32_t id = static_cast<uint8_t>(part[0]);
    for (size_t m = 0; m < merges.size() && part.size() > 1; ++m) {
      std::string product = merges[m];
      product.erase(product.find(' '), 1);
      if (product == part) id = static_cast<uint32_t>(256 + m);
    }
    ids.push_back(id);
  }
  return ids;
}

RC_GTEST_PROP(Bpe, EqualsTheDefinition, ()) {
  static const std::vector<std::string> merges = {"a b", "b b", "ab b", "a a", "bb a", "aa aa"};
  static const auto tokenizer = Make(SmallTokenizerJson(merges));
  const auto text = *rc::gen::container<std::string>(rc::gen::element('a', 'b'));
  RC_ASSERT(tokenizer->Encode(text, true) == MergeSlowly(text, merges));
}

TEST(AddedTokens, LeftmostThenLongestAndOnlyWhenParsed) {
  Json json = SmallTokenizerJson({});
  json["added_tokens"] = Json::array({Added(256, "<a>"), Added(257, "<a>b"), Added(258, "b<")});
  const auto t = Make(json);
  EXPECT_EQ(t->Encode("x<a>b<a>", true), (Ids{'x', 257, 256}));
  EXPECT_EQ(t->Encode("b<a>", true), (Ids{258, 'a', '>'}));
  EXPECT_EQ(t->Encode("<a>", false), (Ids{'<', 'a', '>'}));
  EXPECT_EQ(t->FindSpecial("<a>b"), 257u);
  EXPECT_EQ(t->FindSpecial("<b>"), std::nullopt);
  EXPECT_TRUE(t->IsSpecial(256));
  EXPECT_TRUE(t->IsAdded(256));
  EXPECT_FALSE(t->IsAdded(255));
  EXPECT_EQ(t->TokenBytes(257), "<a>b");
}

TEST(AddedTokens, NormalizedOnesAreFoundInTheGapsOfTheOthers) {
  Json json = SmallTokenizerJson({});
  json["added_tokens"] = Json::array({Added(256, "<ab", /*normalized=*/true), Added(257, "b>")});
  EXPECT_EQ(Make(json)->Encode("<ab>", true), (Ids{'<', 'a', 257}));
  EXPECT_EQ(Make(json)->Encode("<ab", true), Ids{256});
}

TEST(AddedTokens, NothingMergesAcrossThem) {
  Json json = SmallTokenizerJson({"a a"});
  json["added_tokens"] = Json::array({Added(257, "<|>")});
  EXPECT_EQ(Make(json)->Encode("a<|>aa", true), (Ids{'a', 257, 256}));
}

TEST(PreTokenizer, DigitsAloneOrInRuns) {
  Json json = SmallTokenizerJson({"1 2", "12 3", "a 1"});
  json["pre_tokenizer"] = Sequence({Json{{"type", "Digits"}, {"individual_digits", true}}});
  EXPECT_EQ(Make(json)->Encode("a123", true), (Ids{'a', '1', '2', '3'}));
  json["pre_tokenizer"] = Sequence({Json{{"type", "Digits"}, {"individual_digits", false}}});
  EXPECT_EQ(Make(json)->Encode("a123", true), (Ids{'a', 257}));
}

TEST(PreTokenizer, StringPatternsAreLiteral) {
  Json json = SmallTokenizerJson({"a .", ". a", "a a"});
  const Json dot = {{"type", "Split"}, {"pattern", {{"String", "."}}}, {"behavior", "Isolated"}};
  json["pre_tokenizer"] = Sequence(std::vector<Json>{dot});
  EXPECT_EQ(Make(json)->Encode("aa.a", true), (Ids{258, '.', 'a'}));
}

TEST(PreTokenizer, Gpt2ExpressionOfByteLevel) {
  Json json = SmallTokenizerJson({"t '", "' s", "\u0120 \u0120", "\u0120 a"});
  json["pre_tokenizer"] = Sequence({}, /*use_regex=*/true);
  EXPECT_EQ(Make(json)->Encode("t's   a", true), (Ids{'t', 257, 258, 259}));
}

TEST(PreTokenizer, PrefixSpace) {
  Json json = SmallTokenizerJson({});
  json["pre_tokenizer"]["add_prefix_space"] = true;
  EXPECT_EQ(Make(json)->Encode("a", true), (Ids{' ', 'a'}));
  EXPECT_EQ(Make(json)->Encode(" a", true), (Ids{' ', 'a'}));
  EXPECT_EQ(Make(json)->Encode("", true), Ids{});
}

TEST(PreTokenizer, LookAheadEndsWithThePiece) {
  Json json = SmallTokenizerJson({"\u0120 \u0120", "\u0120 b"});
  json["pre_tokenizer"] = Sequence({Split("[0-9]"), Split("\\s+(?!\\S)|\\s+|\\S+")});
  EXPECT_EQ(Make(json)->Encode("  1", true), (Ids{256, '1'}));
  json["pre_tokenizer"] = Sequence({Split("\\s+(?!\\S)|\\s?\\S+")});
  EXPECT_EQ(Make(json)->Encode("  b", true), (Ids{' ', 257}));
}

// U+180E is a space for PCRE2 and not for Unicode, U+0085 is one for both.
TEST(PreTokenizer, SpacesAreThoseOfUnicode) {
  Json json = SmallTokenizerJson({"a \u00e1", "a \u00c2"});  // first bytes of U+180E and U+0085
  for (const char* regex : {"\\s", "[\\s!]", "[^\\S!]"}) {
    json["pre_tokenizer"] = Sequence({Split(regex)});
    EXPECT_EQ(Make(json)->Encode("a\u180e", true).front(), 256u) << regex;
    EXPECT_EQ(Make(json)->Encode("a\u0085", true).front(), Ids::value_type{'a'}) << regex;
  }
}

TEST(PreTokenizer, EmptyMatchesCutAndEnd) {
  Json json = SmallTokenizerJson({"a a"});
  json["pre_tokenizer"] = Sequence({Split("x*")});
  EXPECT_EQ(Make(json)->Encode("aaxx\u00e9", true), (Ids{'a', 'a', 'x', 'x', 0xc3, 0xa9}));
}

// Exponential without a limit.
TEST(PreTokenizer, RunawayExpressionEndsInOnePiece) {
  Json json = SmallTokenizerJson({});
  json["pre_tokenizer"] = Sequence({Split("(?:a|a|aa)+b$")});
  EXPECT_EQ(Make(json)->Encode(std::string(2000, 'a'), true).size(), 2000u);
}

RC_GTEST_PROP(RoundTrip, AnyBytesComeBack, (const std::string& noise)) {
  static const auto tokenizer = [] {
    Json json = SmallTokenizerJson({"\u00c3 \u00a9", "a b", "\u00e2 \u0124", "\u00ff \u00fe"});
    json["pre_tokenizer"] = Sequence({Split("\\p{N}{1,3}"), Split(" ?\\p{L}+|\\s+")});
    json["added_tokens"] = Json::array({Added(260, "<|x|>")});
    return Make(json);
  }();
  const auto parts = *rc::gen::container<std::vector<std::string>>(rc::gen::element<std::string>(
      "\u00e9", "<|x|>", "<|", "a b", "12345", "\xe2\x82", "\xff\xfe", "\xf0\x9f\x98\x80", " "));
  std::string text = noise;
  for (const std::string& part : parts) text += part;
  for (const bool parse : {true, false}) {
    RC_ASSERT(tokenizer->Decode(tokenizer->Encode(text, parse)) == text);
  }
}

TEST(RoundTrip, UnknownIdsHaveNoBytes) {
  const auto t = Make(SmallTokenizerJson({}));
  EXPECT_EQ(t->vocab_size(), 256u);
  EXPECT_EQ(t->TokenBytes(256), "");
  EXPECT_EQ(t->Decode(Ids{'a', 4000000000u, 'b'}), "ab");
}

// A quadratic step anywhere takes minutes here. CPU time, since other tests run beside this one;
// the bound leaves room for sanitizers.
TEST(Hostile, MegabyteOfTheSameTakesAboutASecond) {
  Json json =
      SmallTokenizerJson({"a a", "aa aa", "aaaa aaaa", "\u0120 \u0120", "\u0120\u0120 \u0120\u0120",
                          "\u00f0 \u0141", "! !", "\u010a \u010a"});
  const std::string r3 =
      "[!\"#$%&'()*+,\\-./"
      ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
      " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
  json["pre_tokenizer"] = Sequence({Split("\\p{N}{1,3}"), Split("[\u4e00-\u9fa5]+"), Split(r3)});
  json["added_tokens"] = Json::array({Added(264, "<|begin|>")});
  const auto tokenizer = Make(json);
  for (const std::string unit : {"a", " ", "\U0001F642", "!", "1", "\n", "\u4e2d", "\u0301", " a",
                                 "\xff", "\xf0\x9f", "<|begin|", "a\xff"}) {
    std::string text;
    while (text.size() < (1u << 20)) text += unit;
    const std::clock_t begin = std::clock();
    const Ids ids = tokenizer->Encode(text, true);
    const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    EXPECT_LT(seconds, 10.0) << unit;
    std::printf("1 MiB of %s: %.0f ms\n",
                Json(unit).dump(-1, ' ', true, Json::error_handler_t::replace).c_str(),
                seconds * 1e3);
    EXPECT_EQ(tokenizer->Decode(ids), text);
  }
}

}  // namespace
}  // namespace cachalot::tokenizer
