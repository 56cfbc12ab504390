// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/utf8.h"

namespace cachalot::chat {
namespace {

constexpr std::string_view kReplacement = "\uFFFD";

bool InRange(unsigned char c, unsigned low, unsigned high) { return c >= low && c <= high; }

char Continuation(uint32_t code_point, int shift) {
  return static_cast<char>(0x80 | ((code_point >> shift) & 0x3F));
}

}  // namespace

// Table 3-7 of the Unicode standard: the first byte narrows the range of the second.
size_t Utf8Length(std::string_view text, size_t pos) {
  const auto byte = [text, pos](size_t i) -> unsigned char {
    return pos + i < text.size() ? static_cast<unsigned char>(text[pos + i]) : 0;
  };
  const auto tail = [&byte](size_t from, size_t to) {
    for (size_t i = from; i < to; ++i) {
      if (!InRange(byte(i), 0x80, 0xBF)) return false;
    }
    return true;
  };
  const unsigned char lead = byte(0);
  if (pos < text.size() && lead < 0x80) return 1;
  if (InRange(lead, 0xC2, 0xDF)) return tail(1, 2) ? 2 : 0;
  if (InRange(lead, 0xE0, 0xEF)) {
    const unsigned low = lead == 0xE0 ? 0xA0 : 0x80;
    const unsigned high = lead == 0xED ? 0x9F : 0xBF;
    return InRange(byte(1), low, high) && tail(2, 3) ? 3 : 0;
  }
  if (InRange(lead, 0xF0, 0xF4)) {
    const unsigned low = lead == 0xF0 ? 0x90 : 0x80;
    const unsigned high = lead == 0xF4 ? 0x8F : 0xBF;
    return InRange(byte(1), low, high) && tail(2, 4) ? 4 : 0;
  }
  return 0;
}

void AppendUtf8(uint32_t code_point, std::string& out) {
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    out += static_cast<char>(0xC0 | (code_point >> 6));
    out += Continuation(code_point, 0);
  } else if (code_point < 0x10000) {
    out += static_cast<char>(0xE0 | (code_point >> 12));
    out += Continuation(code_point, 6);
    out += Continuation(code_point, 0);
  } else {
    out += static_cast<char>(0xF0 | (code_point >> 18));
    out += Continuation(code_point, 12);
    out += Continuation(code_point, 6);
    out += Continuation(code_point, 0);
  }
}

std::string SanitizeUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const size_t length = Utf8Length(text, pos);
    out += length > 0 ? text.substr(pos, length) : kReplacement;
    pos += length > 0 ? length : 1;
  }
  return out;
}

}  // namespace cachalot::chat
