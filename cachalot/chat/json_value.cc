// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/json_value.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/tokenizer/utf8.h"

namespace cachalot::chat {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

int HexDigit(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

class Reader {
 public:
  Reader(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  Result<JsonValue> ReadAll() {
    JsonValue value;
    CACHALOT_RETURN_IF_ERROR(ReadValue(0, value));
    SkipSpace();
    if (pos_ != text_.size()) return Bad("text after the value");
    return value;
  }

 private:
  Error Bad(std::string_view what) const {
    return {ErrorCode::kInvalidArgument,
            StrCat(name_, ": not valid JSON at byte ", pos_, ": ", what)};
  }
  // NUL at the end: no token begins with it.
  char Peek() const { return pos_ < text_.size() ? text_[pos_] : '\0'; }
  void SkipSpace() {
    while (Peek() == ' ' || Peek() == '\t' || Peek() == '\n' || Peek() == '\r') ++pos_;
  }
  bool Eat(std::string_view token) {
    if (!text_.substr(pos_).starts_with(token)) return false;
    pos_ += token.size();
    return true;
  }

  Status ReadValue(size_t depth, JsonValue& out) {
    SkipSpace();
    switch (Peek()) {
      case '{':
        return ReadObject(depth + 1, out);
      case '[':
        return ReadArray(depth + 1, out);
      case '"':
        out.kind = JsonValue::Kind::kString;
        return ReadString(out.text);
      default:
        return ReadScalar(out);
    }
  }

  Status ReadScalar(JsonValue& out) {
    if (Peek() == '-' || IsDigit(Peek())) return ReadNumber(out);
    if (Eat("null")) return {};
    out.kind = JsonValue::Kind::kBool;
    out.boolean = Eat("true");
    if (out.boolean || Eat("false")) return {};
    return Bad(pos_ < text_.size() ? "expected a value" : "unexpected end");
  }

  Status ReadNumber(JsonValue& out) {
    const size_t begin = pos_;
    const auto digits = [this] {
      if (!IsDigit(Peek())) return false;
      while (IsDigit(Peek())) ++pos_;
      return true;
    };
    Eat("-");
    if (!Eat("0") && !digits()) return Bad("expected a digit");
    if (Eat(".") && !digits()) return Bad("expected a digit after '.'");
    if (Eat("e") || Eat("E")) {
      if (!Eat("+")) Eat("-");
      if (!digits()) return Bad("expected a digit in the exponent");
    }
    out.kind = JsonValue::Kind::kNumber;
    out.text = text_.substr(begin, pos_ - begin);
    return {};
  }

  Status ReadArray(size_t depth, JsonValue& out) {
    if (depth > kMaxJsonDepth) return Bad(StrCat("nested deeper than ", kMaxJsonDepth));
    out.kind = JsonValue::Kind::kArray;
    ++pos_;
    SkipSpace();
    if (Eat("]")) return {};
    while (true) {
      CACHALOT_RETURN_IF_ERROR(ReadValue(depth, out.items.emplace_back()));
      SkipSpace();
      if (Eat("]")) return {};
      if (!Eat(",")) return Bad("expected ',' or ']'");
    }
  }

  Status ReadObject(size_t depth, JsonValue& out) {
    if (depth > kMaxJsonDepth) return Bad(StrCat("nested deeper than ", kMaxJsonDepth));
    out.kind = JsonValue::Kind::kObject;
    ++pos_;
    SkipSpace();
    if (Eat("}")) return {};
    std::unordered_map<std::string, size_t> index;
    while (true) {
      CACHALOT_RETURN_IF_ERROR(ReadMember(depth, index, out));
      SkipSpace();
      if (Eat("}")) return {};
      if (!Eat(",")) return Bad("expected ',' or '}'");
    }
  }

  Status ReadMember(size_t depth, std::unordered_map<std::string, size_t>& index, JsonValue& out) {
    SkipSpace();
    std::string key;
    if (Peek() != '"') return Bad("expected a key");
    CACHALOT_RETURN_IF_ERROR(ReadString(key));
    SkipSpace();
    if (!Eat(":")) return Bad("expected ':'");
    JsonValue value;
    CACHALOT_RETURN_IF_ERROR(ReadValue(depth, value));
    const auto [known, is_new] = index.emplace(key, out.items.size());
    if (is_new) {
      out.keys.push_back(std::move(key));
      out.items.push_back(std::move(value));
    } else {
      out.items[known->second] = std::move(value);
    }
    return {};
  }

  Status ReadString(std::string& out) {
    ++pos_;
    while (true) {
      if (pos_ >= text_.size()) return Bad("unterminated string");
      const char c = text_[pos_];
      if (c == '"') break;
      if (static_cast<unsigned char>(c) < 0x20) return Bad("control character in a string");
      if (c == '\\') {
        CACHALOT_RETURN_IF_ERROR(ReadEscape(out));
        continue;
      }
      const tokenizer::Utf8Step step = tokenizer::NextUtf8(text_, pos_);
      if (step.kind != tokenizer::Utf8Kind::kValid) return Bad("invalid UTF-8");
      out.append(text_, pos_, step.size);
      pos_ += step.size;
    }
    ++pos_;
    return {};
  }

  Status ReadEscape(std::string& out) {
    constexpr std::string_view kEscapes = "\"\\/bfnrt";
    constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    ++pos_;
    if (Peek() == 'u') return ReadUnicodeEscape(out);
    const size_t which = pos_ < text_.size() ? kEscapes.find(Peek()) : std::string_view::npos;
    if (which == std::string_view::npos) return Bad("unknown escape");
    out += kMeanings[which];
    ++pos_;
    return {};
  }

  // At 'u'. A surrogate that is no half of a pair becomes U+FFFD.
  Status ReadUnicodeEscape(std::string& out) {
    CACHALOT_TRY(uint32_t unit, ReadHex4());
    const bool high = unit >= 0xD800 && unit < 0xDC00;
    if (high && text_.substr(pos_).starts_with("\\u")) {
      const size_t before = pos_;
      ++pos_;
      CACHALOT_TRY(const uint32_t low, ReadHex4());
      if (low >= 0xDC00 && low < 0xE000) {
        tokenizer::AppendUtf8(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), out);
        return {};
      }
      pos_ = before;
    }
    tokenizer::AppendUtf8(unit >= 0xD800 && unit < 0xE000 ? kReplacement : unit, out);
    return {};
  }

  Result<uint32_t> ReadHex4() {
    ++pos_;
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i, ++pos_) {
      const int digit = pos_ < text_.size() ? HexDigit(text_[pos_]) : -1;
      if (digit < 0) return Bad("expected four hexadecimal digits");
      value = value * 16 + static_cast<uint32_t>(digit);
    }
    return value;
  }

  std::string_view text_;
  std::string_view name_;
  size_t pos_ = 0;
};

}  // namespace

const JsonValue* JsonValue::Find(std::string_view key) const {
  const auto found = std::find(keys.begin(), keys.end(), key);
  if (kind != Kind::kObject || found == keys.end()) return nullptr;
  return &items[static_cast<size_t>(found - keys.begin())];
}

std::string_view KindName(JsonValue::Kind kind) {
  switch (kind) {
    case JsonValue::Kind::kNull:
      return "null";
    case JsonValue::Kind::kBool:
      return "a boolean";
    case JsonValue::Kind::kNumber:
      return "a number";
    case JsonValue::Kind::kString:
      return "a string";
    case JsonValue::Kind::kArray:
      return "a list";
    case JsonValue::Kind::kObject:
      break;
  }
  return "an object";
}

Result<JsonValue> ParseJsonValue(std::string_view text, std::string_view name) {
  return Reader(text, name).ReadAll();
}

}  // namespace cachalot::chat
