// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/json_pieces.h"

#include <algorithm>
#include <string>
#include <vector>

namespace cachalot::grammar {
namespace {

constexpr uint32_t kMaxIndent = 20;
constexpr uint32_t kMaxDigits = 17;  // what a double can tell apart

}  // namespace

Piece JsonPieces::Space() {
  if (!space_) {
    space_ = nfa_.DeclareRule();
    Piece indent = nfa_.Literal("\n");
    std::vector<Piece> options = {nfa_.Empty(), nfa_.Literal(" ")};
    Piece spaces = nfa_.Empty();
    for (uint32_t i = 0; i < kMaxIndent; ++i) {
      spaces = nfa_.Optional(nfa_.Sequence({nfa_.Literal(" "), spaces}));
    }
    options.push_back(nfa_.Sequence({indent, spaces}));
    nfa_.DefineRule(*space_, nfa_.Choice(options));
  }
  return nfa_.CallRule(*space_);
}

// All scalar values but control characters, the quote and the backslash. [RFC 3629, section 4]
Piece JsonPieces::Utf8() {
  const auto tail = [this] { return nfa_.Range(0x80, 0xBF); };
  const auto r = [this](uint8_t low, uint8_t high) { return nfa_.Range(low, high); };
  return nfa_.Choice({r(0x20, 0x21), r(0x23, 0x5B), r(0x5D, 0x7F),
                      nfa_.Sequence({r(0xC2, 0xDF), tail()}),
                      nfa_.Sequence({r(0xE0, 0xE0), r(0xA0, 0xBF), tail()}),
                      nfa_.Sequence({r(0xE1, 0xEC), tail(), tail()}),
                      nfa_.Sequence({r(0xED, 0xED), r(0x80, 0x9F), tail()}),
                      nfa_.Sequence({r(0xEE, 0xEF), tail(), tail()}),
                      nfa_.Sequence({r(0xF0, 0xF0), r(0x90, 0xBF), tail(), tail()}),
                      nfa_.Sequence({r(0xF1, 0xF3), tail(), tail(), tail()}),
                      nfa_.Sequence({r(0xF4, 0xF4), r(0x80, 0x8F), tail(), tail()})});
}

Piece JsonPieces::CharacterRule() {
  const auto hex = [this] {
    return nfa_.Choice({nfa_.Range('0', '9'), nfa_.Range('a', 'f'), nfa_.Range('A', 'F')});
  };
  // \uD800 to \uDFFF are halves: the first digit is no D, or the second is below 8.
  const Piece first_two = nfa_.Choice(
      {nfa_.Sequence({nfa_.Choice({nfa_.Range('0', '9'), nfa_.Range('a', 'c'), nfa_.Range('e', 'f'),
                                   nfa_.Range('A', 'C'), nfa_.Range('E', 'F')}),
                      hex()}),
       nfa_.Sequence({nfa_.Choice({nfa_.Literal("d"), nfa_.Literal("D")}), nfa_.Range('0', '7')})});
  std::vector<Piece> simple;
  for (const char c : std::string_view("\"\\/bfnrt")) simple.push_back(nfa_.Literal({&c, 1}));
  const Piece escape =
      nfa_.Sequence({nfa_.Literal("\\"),
                     nfa_.Choice({nfa_.Choice(simple),
                                  nfa_.Sequence({nfa_.Literal("u"), first_two, hex(), hex()})})});
  return nfa_.Choice({Utf8(), escape});
}

Piece JsonPieces::Character() {
  if (!character_) {
    character_ = nfa_.DeclareRule();
    nfa_.DefineRule(*character_, CharacterRule());
  }
  return nfa_.CallRule(*character_);
}

Piece JsonPieces::String(uint32_t least, std::optional<uint32_t> most) {
  std::vector<Piece> parts = {nfa_.Literal("\"")};
  for (uint32_t i = 0; i < least; ++i) parts.push_back(Character());
  if (!most) {
    parts.push_back(nfa_.Star(Character()));
  } else {
    Piece rest = nfa_.Empty();
    for (uint32_t i = least; i < *most; ++i) {
      rest = nfa_.Optional(nfa_.Sequence({Character(), rest}));
    }
    parts.push_back(rest);
  }
  parts.push_back(nfa_.Literal("\""));
  return nfa_.Sequence(parts);
}

Piece JsonPieces::Digits(uint32_t least, uint32_t most) {
  Piece rest = nfa_.Empty();
  for (uint32_t i = least; i < most; ++i) {
    rest = nfa_.Optional(nfa_.Sequence({nfa_.Range('0', '9'), rest}));
  }
  std::vector<Piece> parts;
  for (uint32_t i = 0; i < least; ++i) parts.push_back(nfa_.Range('0', '9'));
  parts.push_back(rest);
  return nfa_.Sequence(parts);
}

Piece JsonPieces::Number(bool negative) {
  const Piece whole = nfa_.Choice(
      {nfa_.Literal("0"), nfa_.Sequence({nfa_.Range('1', '9'), Digits(0, kMaxDigits - 1)})});
  const Piece fraction = nfa_.Optional(nfa_.Sequence({nfa_.Literal("."), Digits(1, kMaxDigits)}));
  const Piece exponent = nfa_.Optional(nfa_.Sequence(
      {nfa_.Choice({nfa_.Literal("e"), nfa_.Literal("E")}),
       nfa_.Choice({nfa_.Empty(), nfa_.Literal("+"), nfa_.Literal("-")}), Digits(1, 2)}));
  const Piece number = nfa_.Sequence({whole, fraction, exponent});
  return negative ? nfa_.Sequence({nfa_.Optional(nfa_.Literal("-")), number}) : number;
}

Piece JsonPieces::Integer() {
  const Piece digits = nfa_.Sequence({nfa_.Range('1', '9'), Digits(0, kMaxDigits - 1)});
  return nfa_.Choice(
      {nfa_.Literal("0"), nfa_.Sequence({nfa_.Optional(nfa_.Literal("-")), digits})});
}

Piece JsonPieces::Boolean() { return nfa_.Choice({nfa_.Literal("true"), nfa_.Literal("false")}); }
Piece JsonPieces::Null() { return nfa_.Literal("null"); }

Piece JsonPieces::Value() {
  if (!value_) {
    value_ = nfa_.DeclareRule();
    const auto any = [this] { return Value(); };
    nfa_.DefineRule(*value_, nfa_.Choice({Object(), Array({}, any, 0, {}), String(0, {}),
                                          Number(true), Boolean(), Null()}));
  }
  return nfa_.CallRule(*value_);
}

Piece JsonPieces::Object() {
  return Map([this] { return String(0, {}); }, [this] { return Value(); });
}

Piece JsonPieces::Member(const Piece& key, const Piece& value) {
  return nfa_.Sequence({key, nfa_.Literal(":"), Space(), value});
}

Piece JsonPieces::Map(const std::function<Piece()>& key, const std::function<Piece()>& value) {
  const auto member = [&] { return Member(key(), value()); };
  const Piece more = nfa_.Star(nfa_.Sequence({nfa_.Literal(","), Space(), member()}));
  const Piece members = nfa_.Optional(nfa_.Sequence({Space(), member(), more}));
  return nfa_.Sequence({nfa_.Literal("{"), members, Space(), nfa_.Literal("}")});
}

Piece JsonPieces::Array(const std::vector<Piece>& first, const std::function<Piece()>& item,
                        uint32_t least, std::optional<uint32_t> most) {
  const auto none = static_cast<uint32_t>(first.size());
  if (most && *most == 0) return nfa_.Sequence({nfa_.Literal("["), Space(), nfa_.Literal("]")});
  const auto next = [&] { return nfa_.Sequence({nfa_.Literal(","), Space(), item()}); };
  std::vector<Piece> parts = {Space(), first.empty() ? item() : first[0]};
  for (size_t i = 1; i < first.size(); ++i) {
    parts.push_back(nfa_.Sequence({nfa_.Literal(","), Space(), first[i]}));
  }
  const uint32_t written = std::max(none, 1u);
  for (uint32_t i = written; i < least; ++i) parts.push_back(next());
  if (most) {
    Piece rest = nfa_.Empty();
    for (uint32_t i = std::max(least, written); i < *most; ++i) {
      rest = nfa_.Optional(nfa_.Sequence({next(), rest}));
    }
    parts.push_back(rest);
  } else {
    parts.push_back(nfa_.Star(next()));
  }
  Piece items = nfa_.Sequence(parts);
  if (least == 0 && first.empty()) items = nfa_.Optional(items);
  return nfa_.Sequence({nfa_.Literal("["), items, Space(), nfa_.Literal("]")});
}

}  // namespace cachalot::grammar
