// SPDX-License-Identifier: Apache-2.0
// What a tokenizer.json can get wrong: each gives one line that names the file and the item.
#include <gtest/gtest.h>

#include <functional>
#include <ostream>

#include "cachalot/tokenizer/test_tokenizers.h"

namespace cachalot::tokenizer {
namespace {

struct BadFile {
  std::string label;
  ErrorCode code;
  std::string says;
  std::function<void(Json&)> spoil;
};

Json Added(const Json& id, const Json& content) { return {{"id", id}, {"content", content}}; }

Json Steps(const Json& first) {
  return {{"type", "Sequence"}, {"pretokenizers", {first, {{"type", "ByteLevel"}}}}};
}

Json Split(const Json& pattern, const char* behavior = "Isolated") {
  return Steps({{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}});
}

constexpr ErrorCode kBad = ErrorCode::kDataCorruption;
constexpr ErrorCode kNo = ErrorCode::kUnsupported;

std::vector<BadFile> BadVocabularies() {
  return {
      {"DanglingProduct", kBad, "model.merges[1] \"a c\" needs \"ac\"",
       [](Json& j) { j["model"]["merges"].push_back("a c"); }},
      {"DanglingSide", kBad, "needs \"zz\"",
       [](Json& j) {
         j["model"]["merges"].push_back(Json::array({"zz", "a"}));
       }},
      {"MergeOfThree", kBad, "model.merges[1]",
       [](Json& j) { j["model"]["merges"].push_back("a b c"); }},
      {"MergeIsNumber", kBad, "model.merges[1] 7",
       [](Json& j) { j["model"]["merges"].push_back(7); }},
      {"MergeRepeated", kBad, "repeats", [](Json& j) { j["model"]["merges"].push_back("a b"); }},
      {"MergesMissing", kBad, "model.merges", [](Json& j) { j["model"].erase("merges"); }},
      {"VocabMissing", kBad, "model.vocab", [](Json& j) { j["model"].erase("vocab"); }},
      {"DuplicateId", kBad, "has id 97", [](Json& j) { j["model"]["vocab"]["ab"] = 97; }},
      {"NegativeId", kBad, "id -1", [](Json& j) { j["model"]["vocab"]["ab"] = -1; }},
      {"FractionalId", kBad, "id 1.5", [](Json& j) { j["model"]["vocab"]["ab"] = 1.5; }},
      {"HugeId", kBad, "only 257 entries", [](Json& j) { j["model"]["vocab"]["ab"] = 4294967296; }},
      {"MissingByte", kBad, "for byte 97",
       [](Json& j) {
         j["model"]["vocab"].erase("a");
         j["model"]["vocab"]["aa"] = 97;
       }},
      {"Hole", kBad, "id 97 has no entry",
       [](Json& j) {
         j["model"]["vocab"].erase("a");
         j["added_tokens"] = Json::array({Added(256, "ab")});
       }},
  };
}

std::vector<BadFile> BadAddedTokens() {
  return {
      {"AddedNotAList", kBad, "added_tokens", [](Json& j) { j["added_tokens"] = 5; }},
      {"AddedNotAnObject", kBad, "added_tokens[0]",
       [](Json& j) { j["added_tokens"] = Json::array({5}); }},
      {"AddedEmpty", kBad, "0 bytes",
       [](Json& j) { j["added_tokens"] = Json::array({Added(257, "")}); }},
      {"AddedLong", kBad, "300 bytes",
       [](Json& j) { j["added_tokens"] = Json::array({Added(257, std::string(300, 'x'))}); }},
      {"AddedIdTaken", kBad, "\"ab\" has in model.vocab",
       [](Json& j) { j["added_tokens"] = Json::array({Added(256, "<x>")}); }},
      {"AddedOtherId", kBad, "but 256 in model.vocab",
       [](Json& j) { j["added_tokens"] = Json::array({Added(257, "ab")}); }},
      {"AddedOfTwoMeanings", kBad, "byte alphabet",
       [](Json& j) { j["added_tokens"] = Json::array({Added(32, "\u0120")}); }},
      {"AddedTwice", kBad, "repeats",
       [](Json& j) {
         j["added_tokens"] = Json::array({Added(257, "<x>"), Added(258, "<x>")});
       }},
      {"AddedSameId", kBad, "repeats",
       [](Json& j) {
         j["added_tokens"] = Json::array({Added(257, "<x>"), Added(257, "<y>")});
       }},
      {"AddedNoId", kBad, "\"<x>\"",
       [](Json& j) { j["added_tokens"] = Json::array({Added(nullptr, "<x>")}); }},
      {"AddedStrips", kNo, "lstrip",
       [](Json& j) {
         j["added_tokens"] = Json::array({Added(257, "<x>")});
         j["added_tokens"][0]["lstrip"] = true;
       }},
      {"AddedFlagWrong", kBad, "special",
       [](Json& j) {
         j["added_tokens"] = Json::array({Added(257, "<x>")});
         j["added_tokens"][0]["special"] = "yes";
       }},
  };
}

std::vector<BadFile> BadPipelines() {
  return {
      {"RootIsAList", kBad, "not an object", [](Json& j) { j = Json::array(); }},
      {"WordPiece", kNo, "WordPiece", [](Json& j) { j["model"]["type"] = "WordPiece"; }},
      {"Dropout", kNo, "dropout", [](Json& j) { j["model"]["dropout"] = 0.1; }},
      {"Suffix", kNo, "</w>", [](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }},
      {"Nfc", kNo, "NFC",
       [](Json& j) {
         j["normalizer"] = {{"type", "NFC"}};
       }},
      {"NfcInSequence", kNo, "NFC",
       [](Json& j) {
         j["normalizer"] = {{"type", "Sequence"},
                            {"normalizers", Json::array({Json{{"type", "NFC"}}})}};
       }},
      {"NoPreTokenizer", kNo, "pre_tokenizer", [](Json& j) { j["pre_tokenizer"] = nullptr; }},
      {"Metaspace", kNo, "Metaspace",
       [](Json& j) {
         j["pre_tokenizer"] = {{"type", "Metaspace"}};
       }},
      {"ByteLevelNotLast", kNo, "ByteLevel",
       [](Json& j) {
         j["pre_tokenizer"] = Steps({{"type", "ByteLevel"}});
       }},
      {"Removed", kNo, "Removed",
       [](Json& j) {
         j["pre_tokenizer"] = Split({{"Regex", "a"}}, "Removed");
       }},
      {"NoPattern", kNo, "pattern",
       [](Json& j) {
         j["pre_tokenizer"] = Split({{"Glob", "a"}});
       }},
      {"BadRegex", kNo, "pretokenizers[0]",
       [](Json& j) {
         j["pre_tokenizer"] = Split({{"Regex", "(a"}});
       }},
      {"WordEscape", kNo, "'\\w' at byte 1",
       [](Json& j) {
         j["pre_tokenizer"] = Split({{"Regex", "a\\w"}});
       }},
      {"Verb", kNo, "(*",
       [](Json& j) {
         j["pre_tokenizer"] = Split({{"Regex", "(*UTF)a"}});
       }},
      {"Recursion", kNo, "(?R)",
       [](Json& j) {
         j["pre_tokenizer"] = Split({{"Regex", "a(?R)?b"}});
       }},
      {"PossessiveCount", kNo, "{2}+",
       [](Json& j) {
         j["pre_tokenizer"] = Split({{"Regex", "a{2}+"}});
       }},
      {"ClassInClass", kNo, "'[b' at byte 2",
       [](Json& j) {
         j["pre_tokenizer"] = Split({{"Regex", "[a[b]]"}});
       }},
  };
}

void PrintTo(const BadFile& file, std::ostream* out) { *out << file.label; }

class BadTokenizerJson : public testing::TestWithParam<BadFile> {};

TEST_P(BadTokenizerJson, IsOneClearError) {
  Json json = SmallTokenizerJson({"a b"});
  GetParam().spoil(json);
  const auto tokenizer = FromJson(json);
  ASSERT_FALSE(tokenizer.ok());
  const Error& error = tokenizer.error();
  EXPECT_EQ(error.code, GetParam().code) << error.message;
  EXPECT_EQ(error.message.rfind("test.json: ", 0), 0u) << error.message;
  EXPECT_NE(error.message.find(GetParam().says), std::string::npos) << error.message;
  EXPECT_EQ(error.message.find('\n'), std::string::npos) << error.message;
}

std::string Name(const testing::TestParamInfo<BadFile>& info) { return info.param.label; }
INSTANTIATE_TEST_SUITE_P(Vocabulary, BadTokenizerJson, testing::ValuesIn(BadVocabularies()), Name);
INSTANTIATE_TEST_SUITE_P(Added, BadTokenizerJson, testing::ValuesIn(BadAddedTokens()), Name);
INSTANTIATE_TEST_SUITE_P(Pipeline, BadTokenizerJson, testing::ValuesIn(BadPipelines()), Name);

TEST(TokenizerJson, CutAnywhereIsAnError) {
  const std::string text = SmallTokenizerJson({"a b"}).dump();
  for (size_t size = 0; size < text.size(); size += 7) {
    EXPECT_FALSE(Tokenizer::FromJson(text.substr(0, size), "cut").ok()) << size;
  }
}

TEST(TokenizerJson, MergesAsPairsOrStringsAreTheSame) {
  Json json = SmallTokenizerJson({"a b"});
  json["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  const auto tokenizer = FromJson(json);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->Encode("ab", true), std::vector<uint32_t>{256});
}

TEST(TokenizerJson, MissingFolderNamesThePath) {
  const auto tokenizer = Tokenizer::Load("/nonexistent");
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_NE(tokenizer.error().message.find("/nonexistent/tokenizer.json"), std::string::npos);
}

}  // namespace
}  // namespace cachalot::tokenizer
