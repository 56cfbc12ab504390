// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/utf8.h"

namespace cachalot::tokenizer {
namespace {

struct Lead {
  uint8_t size;                     // of the whole character; 0: no character begins like this
  uint8_t low = 0x80, high = 0xBF;  // bounds of the second byte; the others are 80..BF
};

Lead Classify(uint8_t byte) {
  if (byte < 0x80) return {.size = 1};
  if (byte < 0xC2) return {.size = 0};  // continuation bytes and overlong two-byte forms
  if (byte < 0xE0) return {.size = 2};
  if (byte == 0xE0) return {.size = 3, .low = 0xA0};
  if (byte == 0xED) return {.size = 3, .high = 0x9F};  // above are the surrogates
  if (byte < 0xF0) return {.size = 3};
  if (byte == 0xF0) return {.size = 4, .low = 0x90};
  if (byte < 0xF4) return {.size = 4};
  if (byte == 0xF4) return {.size = 4, .high = 0x8F};
  return {.size = 0};
}

}  // namespace

Utf8Step NextUtf8(std::string_view text, size_t at) {
  const auto first = static_cast<uint8_t>(text[at]);
  const Lead lead = Classify(first);
  if (lead.size <= 1) {
    return {lead.size == 0 ? Utf8Kind::kInvalid : Utf8Kind::kValid, 1, char32_t{first}};
  }
  char32_t code_point = first & (0x7Fu >> lead.size);
  for (uint8_t i = 1; i < lead.size; ++i) {
    if (at + i >= text.size()) return {Utf8Kind::kIncomplete, i, 0};
    const auto byte = static_cast<uint8_t>(text[at + i]);
    const uint8_t low = i == 1 ? lead.low : uint8_t{0x80};
    const uint8_t high = i == 1 ? lead.high : uint8_t{0xBF};
    if (byte < low || byte > high) return {Utf8Kind::kInvalid, i, 0};
    code_point = (code_point << 6) | (byte & 0x3Fu);
  }
  return {Utf8Kind::kValid, lead.size, code_point};
}

size_t ValidUtf8Length(std::string_view text, size_t at) {
  const size_t begin = at;
  while (at < text.size()) {
    const Utf8Step step = NextUtf8(text, at);
    if (step.kind != Utf8Kind::kValid) break;
    at += step.size;
  }
  return at - begin;
}

void AppendUtf8(char32_t code_point, std::string& out) {
  const auto put = [&out](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

}  // namespace cachalot::tokenizer
