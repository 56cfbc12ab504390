// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/python_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "cachalot/base/strings.h"

namespace cachalot::chat {
namespace {

// Power of ten of the first non-zero digit of a JSON number, saturated; only its sign is needed to
// tell overflow from underflow. "0" gives a negative one.
int DecimalExponent(std::string_view number) {
  constexpr int kHuge = 1'000'000'000;
  const size_t e = std::min(number.find_first_of("eE"), number.size());
  const std::string_view mantissa = number.substr(0, e);
  const size_t point = std::min(mantissa.find('.'), mantissa.size());
  const size_t first = mantissa.find_first_of("123456789");
  if (first == std::string_view::npos) return -1;
  int exponent = 0;
  if (e < number.size()) {
    std::string_view digits = number.substr(e + 1);
    const bool negative = digits.starts_with('-');
    if (negative || digits.starts_with('+')) digits.remove_prefix(1);
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), exponent);
    if (parsed.ec != std::errc() || exponent > kHuge) exponent = kHuge;
    if (negative) exponent = -exponent;
  }
  const auto shift = static_cast<int64_t>(point) - static_cast<int64_t>(first);
  return static_cast<int>(std::clamp<int64_t>(exponent + shift, -kHuge, kHuge));
}

double ParseDouble(std::string_view number) {
  double value = 0;
  const auto parsed = std::from_chars(number.data(), number.data() + number.size(), value);
  if (parsed.ec == std::errc::result_out_of_range) {
    value = DecimalExponent(number) > 0 ? std::numeric_limits<double>::infinity() : 0.0;
    if (number.starts_with('-')) value = -value;
  }
  return value;
}

// repr(float): digits from the shortest scientific form, laid out by Python's rule: decimal when
// -4 <= exponent < 16.
std::string FormatDouble(double value) {
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  char buffer[32];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(end.ptr - buffer));
  const size_t e = text.find('e');
  std::string digits(text.substr(0, e));
  const std::string sign = digits[0] == '-' ? "-" : "";
  digits.erase(0, sign.size());
  std::erase(digits, '.');
  int exponent = 0;
  const std::string_view power = text.substr(text[e + 1] == '+' ? e + 2 : e + 1);
  std::from_chars(power.data(), power.data() + power.size(), exponent);
  if (exponent < -4 || exponent >= 16) {
    if (digits.size() > 1) digits.insert(1, ".");
    const int magnitude = std::abs(exponent);
    return StrCat(sign, digits, "e", exponent < 0 ? "-" : "+", magnitude < 10 ? "0" : "",
                  magnitude);
  }
  if (exponent < 0)
    return StrCat(sign, "0.", std::string(static_cast<size_t>(-exponent - 1), '0'), digits);
  const size_t point = static_cast<size_t>(exponent) + 1;
  if (digits.size() < point + 1) {
    digits.append(point - std::min(point, digits.size()), '0');
    return StrCat(sign, digits, ".0");
  }
  return sign + digits.insert(point, ".");
}

std::string FormatNumber(const std::string& text) {
  if (text.find_first_of(".eE") != std::string::npos) return FormatDouble(ParseDouble(text));
  return text == "-0" ? "0" : text;
}

void Dump(const JsonValue& value, std::string& out) {
  const bool is_object = value.IsObject();
  switch (value.kind) {
    case JsonValue::Kind::kNull:
      out += "null";
      return;
    case JsonValue::Kind::kBool:
      out += value.boolean ? "true" : "false";
      return;
    case JsonValue::Kind::kNumber:
      out += FormatNumber(value.text);
      return;
    case JsonValue::Kind::kString:
      out += JsonString(value.text);
      return;
    case JsonValue::Kind::kArray:
    case JsonValue::Kind::kObject:
      break;
  }
  out += is_object ? '{' : '[';
  for (size_t i = 0; i < value.items.size(); ++i) {
    if (i > 0) out += ", ";
    if (is_object) out += JsonString(value.keys[i]) + ": ";
    Dump(value.items[i], out);
  }
  out += is_object ? '}' : ']';
}

}  // namespace

std::string DumpPythonJson(const JsonValue& value) {
  std::string out;
  Dump(value, out);
  return out;
}

void AppendJsonEscaped(std::string_view text, std::string& out) {
  constexpr std::string_view kSpecial = "\"\\\n\r\t\b\f";
  constexpr std::string_view kNames = "\"\\nrtbf";
  constexpr std::string_view kHex = "0123456789abcdef";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (const size_t which = kSpecial.find(c); which != std::string_view::npos) {
      out += '\\';
      out += kNames[which];
    } else if (byte < 0x20) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
}

std::string JsonString(std::string_view text) {
  std::string out = "\"";
  AppendJsonEscaped(text, out);
  out += '"';
  return out;
}

}  // namespace cachalot::chat
