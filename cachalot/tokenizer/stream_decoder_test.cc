// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/stream_decoder.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "cachalot/tokenizer/test_tokenizers.h"
#include "cachalot/tokenizer/utf8.h"

namespace cachalot::tokenizer {
namespace {

constexpr const char* kFffd = "\ufffd";

bool IsUtf8(std::string_view text) { return ValidUtf8Length(text, 0) == text.size(); }

std::string DecodeWhole(std::string_view bytes) {
  Utf8Stream stream;
  std::string text = stream.Push(bytes);
  return text + stream.Finish();
}

// Every way to cut `bytes` in three.
void ExpectAllCutsAgree(const std::string& bytes, const std::string& expected) {
  for (size_t a = 0; a <= bytes.size(); ++a) {
    for (size_t b = a; b <= bytes.size(); ++b) {
      Utf8Stream stream;
      std::string text;
      for (const std::string& part :
           {bytes.substr(0, a), bytes.substr(a, b - a), bytes.substr(b)}) {
        const std::string out = stream.Push(part);
        EXPECT_TRUE(IsUtf8(out)) << a << " " << b;
        text += out;
      }
      EXPECT_EQ(text + stream.Finish(), expected) << a << " " << b;
    }
  }
}

TEST(Utf8Stream, CutsDoNotMatter) {
  ExpectAllCutsAgree("a\u00e9\u4e2d\U0001F642b", "a\u00e9\u4e2d\U0001F642b");
  const std::string r = kFffd;
  ExpectAllCutsAgree(
      "\xff"
      "a\xe4\xb8"
      "b\xf0\x9f\x99",
      r + "a" + r + "b" + r);
}

// As Python's bytes.decode(errors="replace") and the Unicode standard, table 3-8.
TEST(Utf8Stream, ReplacesMaximalSubparts) {
  const std::string r = kFffd;
  EXPECT_EQ(DecodeWhole("\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64"),
            "a" + r + r + r + "b" + r + "c" + r + r + "d");
  EXPECT_EQ(DecodeWhole("\xc0\xaf\xe0\x80\xbf"), r + r + r + r + r);  // overlong
  EXPECT_EQ(DecodeWhole("\xed\xa0\x80"), r + r + r);                  // surrogate
  EXPECT_EQ(DecodeWhole("\xf4\x90\x80\x80"), r + r + r + r);          // above U+10FFFF
  EXPECT_EQ(DecodeWhole(std::string_view("\0", 1)), std::string(1, '\0'));
}

TEST(Utf8Stream, HoldsBackOnlyWhatMayStillBecomeACharacter) {
  Utf8Stream stream;
  EXPECT_EQ(stream.Push("a\xf0\x9f"), "a");
  EXPECT_EQ(stream.Push("\x99"), "");
  EXPECT_EQ(stream.Push("\x82!"), "\U0001F642!");
  EXPECT_EQ(stream.Push("\xe4"), "");
  EXPECT_EQ(stream.Push("\xff"), std::string(kFffd) + kFffd);
  EXPECT_EQ(stream.Finish(), "");
}

TEST(Utf8Stream, FinishIsReadyForANewText) {
  Utf8Stream stream;
  EXPECT_EQ(stream.Push("\xe4\xb8"), "");
  EXPECT_EQ(stream.Finish(), kFffd);
  EXPECT_EQ(stream.Finish(), "");
  EXPECT_EQ(stream.Push("\u4e2d"), "\u4e2d");
}

RC_GTEST_PROP(Utf8Stream, ByteByByteEqualsWhole, (const std::string& bytes)) {
  Utf8Stream stream;
  std::string text;
  for (const char byte : bytes) text += stream.Push(std::string_view(&byte, 1));
  text += stream.Finish();
  RC_ASSERT(IsUtf8(text));
  RC_ASSERT(text == DecodeWhole(bytes));
}

TEST(Utf8, EveryCodePointComesBack) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    std::string text;
    AppendUtf8(c, text);
    const Utf8Step step = NextUtf8(text, 0);
    const bool surrogate = c >= 0xD800 && c <= 0xDFFF;
    ASSERT_EQ(step.kind == Utf8Kind::kValid, !surrogate) << uint32_t{c};
    ASSERT_TRUE(surrogate || (step.code_point == c && step.size == text.size())) << uint32_t{c};
  }
}

TEST(StreamDecoder, CharactersSpreadOverIdsComeWhole) {
  const auto tokenizer = FromJson(SmallTokenizerJson({}));
  ASSERT_TRUE(tokenizer.ok());
  StreamDecoder decoder(**tokenizer);
  EXPECT_EQ(decoder.Push(0xe4), "");
  EXPECT_EQ(decoder.Push(0xb8), "");
  EXPECT_EQ(decoder.Push(0xad), "\u4e2d");
  EXPECT_EQ(decoder.Push(999), "");  // no such id
  EXPECT_EQ(decoder.Finish(), "");
}

TEST(ByteAlphabet, IsTheGpt2Map) {
  EXPECT_EQ(ByteSymbol('!'), "!");
  EXPECT_EQ(ByteSymbol(' '), "\u0120");
  EXPECT_EQ(ByteSymbol('\n'), "\u010a");
  EXPECT_EQ(ByteSymbol(0xAD), "\u0143");
  for (int byte = 0; byte < 256; ++byte) {
    const auto b = static_cast<uint8_t>(byte);
    EXPECT_EQ(BytesOfSymbols(ByteSymbol(b)), std::string(1, static_cast<char>(b)));
  }
  EXPECT_EQ(BytesOfSymbols(" "), std::nullopt);
  EXPECT_EQ(BytesOfSymbols("\uff5c"), std::nullopt);
}

}  // namespace
}  // namespace cachalot::tokenizer
