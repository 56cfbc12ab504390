// SPDX-License-Identifier: Apache-2.0
// The real tokenizers against ids computed by others.
#include <gtest/gtest.h>

#include <ctime>

#include "cachalot/tokenizer/test_tokenizers.h"

namespace cachalot::tokenizer {
namespace {

// Null, with a loud line, if the file is not there.
std::shared_ptr<const Tokenizer> DeepSeekV4() {
  const std::string path = DeepSeekTokenizerPath();
  const std::string table = SharedPath("golden/tokenizer/added_tokens_v4.json");
  if (path.empty() || !std::filesystem::exists(table)) {
    std::fprintf(stderr,
                 "SKIPPED, NOT TESTED: the real DeepSeek vocabulary needs %s and "
                 "tools/fetch_deepseek_tokenizer.sh build/third_party/deepseek_v3\n",
                 table.c_str());
    return nullptr;
  }
  const auto v3 = io::ReadFile(path, uint64_t{1} << 30);
  const auto added = io::ReadFile(table, uint64_t{1} << 30);
  auto tokenizer = Tokenizer::FromJson(MakeV4Json(v3.value(), added.value()), "v4");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  return tokenizer.ok() ? tokenizer.value() : nullptr;
}

class DeepSeekGolden : public testing::Test {
 protected:
  static void SetUpTestSuite() { tokenizer_ = new auto(DeepSeekV4()); }
  static void TearDownTestSuite() { delete tokenizer_; }
  void SetUp() override {
    if (*tokenizer_ == nullptr) GTEST_SKIP() << "the DeepSeek tokenizer is absent";
  }
  const Tokenizer& tokenizer() const { return **tokenizer_; }
  static inline std::shared_ptr<const Tokenizer>* tokenizer_ = nullptr;
};

TEST_F(DeepSeekGolden, EveryVectorAgreesAndDecodesBack) {
  const std::string path = SharedPath("golden/tokenizer/vectors.json");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "NOT TESTED: no " << path;
  const auto text = io::ReadFile(path, uint64_t{1} << 30);
  size_t tokens = 0, cases = 0;
  for (const auto& item : SortedJson::parse(text.value())) {
    const auto input = item["t"].get<std::string>();
    const auto expected = item["ids"].get<std::vector<uint32_t>>();
    const auto ids = tokenizer().Encode(input, true);
    ASSERT_EQ(ids, expected) << "case " << cases << ": " << item["t"];
    ASSERT_EQ(tokenizer().Decode(ids), input);
    tokens += ids.size();
    ++cases;
  }
  EXPECT_GT(tokens, 0u);
  std::printf("%zu vectors, %zu tokens\n", cases, tokens);
}

struct Example {
  std::string text;
  std::vector<uint32_t> ids;
};

TEST_F(DeepSeekGolden, ExamplesOfTheSpecification) {
  EXPECT_EQ(tokenizer().vocab_size(), 129280u);
  const std::vector<Example> examples = {
      {"a  1", {67, 262, 19}},
      {"a  b", {67, 223, 291}},
      {"1234567", {6895, 18009, 25}},
      {"3.14159", {21, 16, 9926, 3318}},
      {" \u4e2d", {223, 525}},
      {"foo_bar", {40897, 100869}},
      {"don't", {20385, 1664}},
      {"a.b", {67, 6229}},
      {"e\u0301", {71, 17793}},
      {"\u00e9", {619}},
      {"\r\n\r\n", {204, 201, 204, 201}},
      {"Hello, world!", {19923, 14, 2058, 3}},
      {"\n\n", {271}},
      {"x=1;\n\n\ty", {90, 31, 19, 1048, 102039}},
      {"\U0001F642", {80300, 227}},
      {"\n\n<\uff5cDSML\uff5ctool_calls>\n<\uff5cDSML\uff5cinvoke name=\"",
       {271, 30, 128825, 72461, 4941, 12548, 1018, 30, 128825, 40148, 5406, 2329, 1281}},
      {"</\uff5cDSML\uff5ctool_calls><\uff5cend\u2581of\u2581sentence\uff5c>",
       {1718, 128825, 72461, 4941, 12548, 32, 1}},
      {"<\uff5cDSML\uff5c calls>\n<\uff5cDSML\uff5c invoke name=\"",
       {30, 128825, 10699, 1018, 30, 128825, 34756, 2329, 1281}},
      {"<\uff5cbegin\u2581of\u2581sentence\uff5c><\uff5cUser\uff5c>Hi<\uff5cAssistant\uff5c><"
       "think>",
       {0, 128803, 23166, 128804, 128821}},
  };
  for (const Example& example : examples) {
    EXPECT_EQ(tokenizer().Encode(example.text, true), example.ids) << example.text;
  }
}

TEST_F(DeepSeekGolden, HalfACharacterIsOneTokenAgain) {
  EXPECT_EQ(tokenizer().Encode(tokenizer().TokenBytes(80300), true), std::vector<uint32_t>{80300});
}

// The bound leaves room for sanitizers; a quadratic step takes minutes.
TEST_F(DeepSeekGolden, MegabyteOfTheSameIsNotQuadratic) {
  for (const std::string unit : {"a", " ", "\U0001F642"}) {
    std::string text;
    while (text.size() < (1u << 20)) text += unit;
    const std::clock_t begin = std::clock();
    const auto ids = tokenizer().Encode(text, true);
    const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    std::printf("1 MiB of '%s': %.0f ms\n", unit.c_str(), seconds * 1e3);
    EXPECT_LT(seconds, 10.0) << unit;
    EXPECT_EQ(tokenizer().Decode(ids), text);
  }
}

TEST(MiniGolden, HeldOutTextAgrees) {
  const std::string folder = SharedPath("models/mini");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "NOT TESTED: no " << folder;
  const auto tokenizer = Tokenizer::Load(folder);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  const auto text = io::ReadFile(folder + "/heldout.txt", uint64_t{1} << 30);
  const auto json = io::ReadFile(folder + "/heldout.first2000.ids.json", uint64_t{1} << 30);
  const auto expected = SortedJson::parse(json.value()).get<std::vector<uint32_t>>();
  auto ids = (*tokenizer)->Encode(text.value(), true);
  EXPECT_EQ((*tokenizer)->Decode(ids), text.value());
  ASSERT_GE(ids.size(), expected.size());
  ids.resize(expected.size());
  EXPECT_EQ(ids, expected);
}

}  // namespace
}  // namespace cachalot::tokenizer
