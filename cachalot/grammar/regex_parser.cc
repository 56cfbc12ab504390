// SPDX-License-Identifier: Apache-2.0
// [ECMA-262, section 22.2.1, with the leniency of its annex B where a brace or a bracket stands
// alone]
#include "cachalot/grammar/regex_parser.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/tokenizer/utf8.h"

namespace cachalot::grammar {
namespace {

constexpr int kMaxDepth = 64;
constexpr uint32_t kMaxRepeat = 2048;

using Kind = RegexNode::Kind;

RegexNode SetNode(CharSet set) { return {.kind = Kind::kSet, .set = std::move(set), .parts = {}}; }

CharSet Digits() { return {'0', '9'}; }

CharSet WordCharacters() {
  CharSet set = Digits();
  set.Add('a', 'z');
  set.Add('A', 'Z');
  set.Add('_', '_');
  return set;
}

CharSet LineEnds() {
  CharSet set('\n', '\n');
  set.Add('\r', '\r');
  set.Add(0x2028, 0x2029);
  return set;
}

CharSet Spaces() {
  CharSet set('\t', '\r');
  set.Add(LineEnds());
  for (const uint32_t c : {0x20u, 0xA0u, 0x1680u, 0x202Fu, 0x205Fu, 0x3000u, 0xFEFFu}) {
    set.Add(c, c);
  }
  set.Add(0x2000, 0x200A);
  return set;
}

std::optional<uint32_t> HexDigit(uint32_t c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return {};
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<RegexNode> All() {
    if (tokenizer::ValidUtf8Length(text_, 0) != text_.size()) return Bad("is not UTF-8");
    CACHALOT_TRY(RegexNode node, Choice());
    if (at_ < text_.size()) return Bad("has a ')' too many");
    return node;
  }

 private:
  Error Bad(std::string_view what) const {
    return {ErrorCode::kInvalidArgument, StrCat("the expression ", what, " at byte ", at_)};
  }
  Error Unsupported(std::string_view what) const {
    return {ErrorCode::kUnsupported, StrCat(what, " (byte ", at_, ") cannot be enforced")};
  }

  bool AtEnd() const { return at_ >= text_.size(); }
  bool Sees(std::string_view next) const { return text_.substr(at_).starts_with(next); }
  bool Take(std::string_view next) {
    if (!Sees(next)) return false;
    at_ += next.size();
    return true;
  }
  uint32_t TakeChar() {
    const tokenizer::Utf8Step step = tokenizer::NextUtf8(text_, at_);
    at_ += step.size;
    return step.code_point;
  }

  Result<RegexNode> Choice() {
    if (++depth_ > kMaxDepth) return Bad("is nested too deep");
    RegexNode choice{.kind = Kind::kChoice, .set = {}, .parts = {}};
    do {
      CACHALOT_TRY(RegexNode branch, Sequence());
      choice.parts.push_back(std::move(branch));
    } while (Take("|"));
    --depth_;
    if (choice.parts.size() > 1) return choice;
    RegexNode only = std::move(choice.parts[0]);
    return only;
  }

  Result<RegexNode> Sequence() {
    RegexNode sequence{.kind = Kind::kSequence, .set = {}, .parts = {}};
    while (!AtEnd() && !Sees("|") && !Sees(")")) {
      CACHALOT_TRY(RegexNode atom, Atom());
      CACHALOT_TRY(RegexNode term, Quantified(std::move(atom)));
      sequence.parts.push_back(std::move(term));
    }
    return sequence;
  }

  Result<RegexNode> Atom() {
    if (Take("^")) return RegexNode{.kind = Kind::kBegin, .set = {}, .parts = {}};
    if (Take("$")) return RegexNode{.kind = Kind::kEnd, .set = {}, .parts = {}};
    if (Sees("(")) return Group();
    if (Take(".")) return SetNode(LineEnds().Complement());
    if (Sees("[")) return Class();
    if (Sees("*") || Sees("+") || Sees("?")) return Bad("has nothing to repeat");
    if (Sees("\\")) {
      if (Sees("\\b") || Sees("\\B")) return Unsupported("a word boundary");
      if (Sees("\\k")) return Unsupported("a back reference");
      if (text_.size() > at_ + 1 && text_[at_ + 1] >= '1' && text_[at_ + 1] <= '9') {
        return Unsupported("a back reference");
      }
      CACHALOT_TRY(CharSet set, Escape());
      return SetNode(std::move(set));
    }
    const uint32_t c = TakeChar();
    return SetNode({c, c});
  }

  Result<RegexNode> Group() {
    for (const std::string_view look : {"(?=", "(?!", "(?<=", "(?<!"}) {
      if (Sees(look)) return Unsupported("looking ahead or behind");
    }
    if (Take("(?<") || Take("(?P<")) {
      const size_t end = text_.find('>', at_);
      if (end == std::string_view::npos) return Bad("has a group name without an end");
      at_ = end + 1;
    } else if (!Take("(?:")) {
      if (Sees("(?")) return Unsupported("this kind of group");
      at_ += 1;
    }
    CACHALOT_TRY(RegexNode body, Choice());
    if (!Take(")")) return Bad("lacks a ')'");
    return body;
  }

  Result<RegexNode> Quantified(RegexNode atom) {
    uint32_t least = 1, most = 1;
    if (Take("*")) {
      least = 0, most = RegexNode::kUnbounded;
    } else if (Take("+")) {
      most = RegexNode::kUnbounded;
    } else if (Take("?")) {
      least = 0;
    } else if (Sees("{")) {
      CACHALOT_TRY(const bool counted, Counts(least, most));
      if (!counted) return atom;
    } else {
      return atom;
    }
    Take("?");  // as few as possible: the same texts
    if (Sees("*") || Sees("+") || Sees("?")) return Bad("repeats a repetition");
    if (atom.kind == Kind::kBegin || atom.kind == Kind::kEnd) return Bad("repeats an anchor");
    RegexNode repeat{.kind = Kind::kRepeat, .set = {}, .parts = {}, .least = least, .most = most};
    repeat.parts.push_back(std::move(atom));
    return repeat;
  }

  // {2}, {2,}, {2,5}; any other brace is a character.
  Result<bool> Counts(uint32_t& least, uint32_t& most) {
    const size_t begin = at_;
    Take("{");
    const std::optional<uint32_t> first = Number();
    std::optional<uint32_t> last = first;
    if (first && Take(",")) last = Sees("}") ? RegexNode::kUnbounded : Number();
    if (!first || !last || !Take("}")) {
      at_ = begin;
      return false;
    }
    least = *first;
    most = *last;
    if (least > most) return Bad("has a repetition whose bounds are the wrong way round");
    if (least > kMaxRepeat || (most > kMaxRepeat && most != RegexNode::kUnbounded)) {
      return Error{ErrorCode::kUnsupported,
                   StrCat("a repetition of more than ", kMaxRepeat, " cannot be enforced")};
    }
    return true;
  }

  std::optional<uint32_t> Number() {
    if (AtEnd() || text_[at_] < '0' || text_[at_] > '9') return {};
    uint32_t value = 0;
    for (; !AtEnd() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      value = std::min<uint32_t>(value * 10 + static_cast<uint32_t>(text_[at_] - '0'), 1'000'000);
    }
    return value;
  }

  // From the backslash on.
  Result<CharSet> Escape() {
    Take("\\");
    if (AtEnd()) return Bad("ends with a backslash");
    const uint32_t c = TakeChar();
    switch (c) {
      case 'd':
        return Digits();
      case 'D':
        return Digits().Complement();
      case 'w':
        return WordCharacters();
      case 'W':
        return WordCharacters().Complement();
      case 's':
        return Spaces();
      case 'S':
        return Spaces().Complement();
      case 'p':
      case 'P':
        return Unsupported("a Unicode property");
      default:
        break;
    }
    CACHALOT_TRY(const uint32_t character, EscapedCharacter(c));
    return CharSet(character, character);
  }

  Result<uint32_t> EscapedCharacter(uint32_t c) {
    constexpr std::string_view kNames = "tnvfr0";
    constexpr std::string_view kValues{"\t\n\v\f\r\0", 6};
    if (c < 0x80 && kNames.find(static_cast<char>(c)) != std::string_view::npos) {
      return static_cast<uint32_t>(kValues[kNames.find(static_cast<char>(c))]);
    }
    if (c == 'x') return Hex(2);
    if (c == 'u') return Unicode();
    if (c == 'c' && !AtEnd()) return TakeChar() % 32;
    const bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (word) return Bad(StrCat("has an unknown escape '\\", static_cast<char>(c), "'"));
    return c;
  }

  Result<uint32_t> Unicode() {
    if (Take("{")) {
      CACHALOT_TRY(const uint32_t c, Hex(0));
      if (c > CharSet::kMaxChar || !Take("}")) return Bad("has a bad \\u{..}");
      return c;
    }
    CACHALOT_TRY(const uint32_t high, Hex(4));
    if (high < 0xD800 || high > 0xDBFF || !Take("\\u")) return high;
    CACHALOT_TRY(const uint32_t low, Hex(4));
    if (low < 0xDC00 || low > 0xDFFF) return Bad("has half a surrogate pair");
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }

  // `count` digits; 0: as many as there are, at most 6.
  Result<uint32_t> Hex(size_t count) {
    uint32_t value = 0;
    size_t read = 0;
    while (!AtEnd() && read < (count > 0 ? count : 6)) {
      const auto digit = HexDigit(static_cast<uint8_t>(text_[at_]));
      if (!digit) break;
      value = value * 16 + *digit;
      ++read;
      ++at_;
    }
    if (read == 0 || (count > 0 && read != count)) return Bad("lacks hexadecimal digits");
    return value;
  }

  Result<RegexNode> Class() {
    Take("[");
    const bool negated = Take("^");
    CharSet set;
    while (!Take("]")) {
      if (AtEnd()) return Bad("lacks a ']'");
      CACHALOT_TRY(const CharSet low, ClassPart());
      const bool range = Sees("-") && !Sees("-]");
      if (!range) {
        set.Add(low);
        continue;
      }
      Take("-");
      if (AtEnd()) return Bad("lacks a ']'");
      CACHALOT_TRY(const CharSet high, ClassPart());
      const auto single = [](const CharSet& s) {
        return s.ranges().size() == 1 && s.ranges()[0].low == s.ranges()[0].high;
      };
      if (!single(low) || !single(high)) {  // [\w-.]: three parts
        set.Add(low);
        set.Add('-', '-');
        set.Add(high);
        continue;
      }
      if (low.ranges()[0].low > high.ranges()[0].low) return Bad("has a range that runs backwards");
      set.Add(low.ranges()[0].low, high.ranges()[0].low);
    }
    return SetNode(negated ? set.Complement() : set);
  }

  Result<CharSet> ClassPart() {
    if (Take("\\b")) return CharSet('\b', '\b');
    if (Sees("\\")) return Escape();
    const uint32_t c = TakeChar();
    return CharSet(c, c);
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

Result<RegexNode> ParseRegex(std::string_view pattern) { return Parser(pattern).All(); }

}  // namespace cachalot::grammar
