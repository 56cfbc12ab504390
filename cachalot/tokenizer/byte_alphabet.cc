// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/byte_alphabet.h"

#include <array>

#include "cachalot/tokenizer/utf8.h"

namespace cachalot::tokenizer {
namespace {

constexpr char32_t kFirstShifted = 0x100;
constexpr char32_t kNumCodePoints = kFirstShifted + 68;

struct Alphabet {
  std::array<char32_t, 256> code_point{};
  std::array<int16_t, kNumCodePoints> byte{};  // -1: not in the alphabet
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte) byte = -1;
  char32_t shifted = kFirstShifted;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool stands_for_itself =
        (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    alphabet.code_point[b] = stands_for_itself ? char32_t{b} : shifted++;
    alphabet.byte[alphabet.code_point[b]] = static_cast<int16_t>(b);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

std::string ByteSymbol(uint8_t byte) {
  std::string symbol;
  AppendUtf8(kAlphabet.code_point[byte], symbol);
  return symbol;
}

std::optional<std::string> BytesOfSymbols(std::string_view symbols) {
  std::string bytes;
  for (size_t at = 0; at < symbols.size();) {
    const Utf8Step step = NextUtf8(symbols, at);
    if (step.kind != Utf8Kind::kValid || step.code_point >= kNumCodePoints) return std::nullopt;
    const int16_t byte = kAlphabet.byte[step.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    at += step.size;
  }
  return bytes;
}

}  // namespace cachalot::tokenizer
