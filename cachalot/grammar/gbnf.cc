// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/gbnf.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "cachalot/base/strings.h"
#include "cachalot/grammar/char_set.h"
#include "cachalot/grammar/text_writer.h"
#include "cachalot/tokenizer/utf8.h"

namespace cachalot::grammar {
namespace {

constexpr size_t kMaxStates = 400'000;
constexpr int kMaxDepth = 64;
constexpr uint32_t kMaxRepeat = 2048;
constexpr uint32_t kMaxRules =
    2000;  // the search for left recursion is quadratic in the worst case

bool IsName(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

class Compiler {
 public:
  Compiler(std::string_view text, Nfa& nfa) : text_(text), nfa_(nfa), writer_(nfa) {}

  Result<Piece> Compile() {
    if (tokenizer::ValidUtf8Length(text_, 0) != text_.size()) return Bad("is not UTF-8");
    for (Space(); at_ < text_.size(); Space()) {
      const std::string name = TakeName();
      Space();
      if (name.empty() || !Take("::=")) return Bad("lacks a 'name ::='");
      Rule& rule = RuleOf(name);
      if (rule.defined) return Bad(StrCat("defines '", name, "' again"));
      rule.defined = true;
      const uint32_t number = rule.number;
      CACHALOT_TRY(const Piece body, Choice());
      nfa_.DefineRule(number, body);
    }
    for (const auto& [name, rule] : rules_) {
      if (!rule.defined) return Bad(StrCat("names '", name, "', which no line defines,"));
    }
    const auto root = rules_.find("root");
    if (root == rules_.end()) return Bad("has no rule 'root'");
    CACHALOT_RETURN_IF_ERROR(RefuseLeftRecursion());
    return nfa_.CallRule(root->second.number);
  }

 private:
  struct Rule {
    uint32_t number = 0;
    bool defined = false;
  };

  Error Bad(std::string_view what) const {
    const auto line =
        1 + std::count(text_.begin(),
                       text_.begin() + static_cast<ptrdiff_t>(std::min(at_, text_.size())), '\n');
    return {ErrorCode::kInvalidArgument, StrCat("the grammar ", what, " (line ", line, ")")};
  }

  bool AtEnd() const { return at_ >= text_.size(); }
  bool Sees(std::string_view next) const { return text_.substr(at_).starts_with(next); }
  bool Take(std::string_view next) {
    if (!Sees(next)) return false;
    at_ += next.size();
    return true;
  }
  void Space() {
    while (!AtEnd()) {
      const char c = text_[at_];
      if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
        ++at_;
      } else {
        break;
      }
    }
  }
  std::string TakeName() {
    const size_t begin = at_;
    while (!AtEnd() && IsName(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }
  // Whether a new rule begins here: only then does a name not belong to the one before.
  bool SeesRule() {
    const size_t begin = at_;
    const bool name = !TakeName().empty();
    Space();
    const bool rule = name && Sees("::=");
    at_ = begin;
    return rule;
  }
  Rule& RuleOf(const std::string& name) {
    const auto [it, added] = rules_.try_emplace(name);
    if (added) it->second.number = nfa_.DeclareRule();
    return it->second;
  }

  Result<Piece> Choice() {
    if (++depth_ > kMaxDepth) return Bad("is nested too deep");
    std::vector<Piece> options;
    do {
      CACHALOT_TRY(const Piece option, Sequence());
      options.push_back(option);
    } while (Take("|"));
    --depth_;
    return nfa_.Choice(options);
  }

  Result<Piece> Sequence() {
    std::vector<Piece> parts;
    for (Space(); !AtEnd() && !Sees("|") && !Sees(")") && !SeesRule(); Space()) {
      CACHALOT_TRY(const Piece atom, Atom());
      CACHALOT_TRY(const Piece part, Repeated(atom));
      parts.push_back(part);
      if (nfa_.num_states() > kMaxStates || nfa_.num_rules() > kMaxRules)
        return Bad("is too large");
    }
    return nfa_.Sequence(parts);
  }

  Result<Piece> Atom() {
    if (Take("\"")) {
      std::vector<Piece> parts;
      while (!Take("\"")) {
        CACHALOT_TRY(const uint32_t c, Character());
        parts.push_back(writer_.Character({c, c}));
      }
      return nfa_.Sequence(parts);
    }
    if (Take(".")) return writer_.Character(CharSet::All());
    if (Take("[")) return Class();
    if (Take("(")) {
      CACHALOT_TRY(const Piece group, Choice());
      if (!Take(")")) return Bad("lacks a ')'");
      return group;
    }
    const std::string name = TakeName();
    if (name.empty()) return Bad("has something that is neither a name nor a text");
    return nfa_.CallRule(RuleOf(name).number);
  }

  Result<Piece> Class() {
    const bool negated = Take("^");
    CharSet set;
    while (!Take("]")) {
      CACHALOT_TRY(const uint32_t low, Character());
      uint32_t high = low;
      if (Sees("-") && !Sees("-]")) {
        Take("-");
        CACHALOT_TRY(high, Character());
      }
      if (low > high) return Bad("has a range that runs backwards");
      set.Add(low, high);
    }
    return writer_.Character(negated ? set.Complement() : set);
  }

  Result<uint32_t> Character() {
    if (AtEnd()) return Bad("ends inside a text");
    if (!Take("\\")) {
      const tokenizer::Utf8Step step = tokenizer::NextUtf8(text_, at_);
      at_ += step.size;
      return static_cast<uint32_t>(step.code_point);
    }
    if (AtEnd()) return Bad("ends inside a text");
    const char c = text_[at_++];
    constexpr std::string_view kNames = "nrt\\\"[]-^";
    constexpr std::string_view kValues = "\n\r\t\\\"[]-^";
    if (const size_t at = kNames.find(c); at != std::string_view::npos) {
      return static_cast<uint32_t>(kValues[at]);
    }
    if (c == 'x') return Hex(2);
    if (c == 'u') return Hex(4);
    if (c == 'U') return Hex(8);
    return Bad("has an unknown escape");
  }

  Result<uint32_t> Hex(int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; ++i) {
      constexpr std::string_view kDigits = "0123456789abcdefABCDEF";
      const size_t digit = AtEnd() ? std::string_view::npos : kDigits.find(text_[at_]);
      if (digit == std::string_view::npos) return Bad("lacks hexadecimal digits");
      value = value * 16 + (digit < 16 ? digit : digit - 6);
      ++at_;
    }
    if (value > CharSet::kMaxChar) return Bad("has a character beyond Unicode");
    return static_cast<uint32_t>(value);
  }

  Result<Piece> Repeated(Piece atom) {
    constexpr uint32_t kUnbounded = UINT32_MAX;
    uint32_t least = 0, most = kUnbounded;
    if (Take("*")) {
    } else if (Take("+")) {
      least = 1;
    } else if (Take("?")) {
      most = 1;
    } else if (Take("{")) {
      CACHALOT_TRY(least, Number());
      most = least;
      if (Take(",")) {
        most = kUnbounded;
        if (!Sees("}")) {
          CACHALOT_TRY(most, Number());
        }
      }
      if (!Take("}") || most < least) return Bad("has a bad repetition");
    } else {
      return atom;
    }
    const uint32_t rule = nfa_.DeclareRule();
    nfa_.DefineRule(rule, atom);
    std::vector<Piece> parts;
    for (uint32_t i = 0; i < least; ++i) parts.push_back(nfa_.CallRule(rule));
    if (most == kUnbounded) {
      parts.push_back(nfa_.Star(nfa_.CallRule(rule)));
    } else {
      Piece rest = nfa_.Empty();
      for (uint32_t i = least; i < most; ++i) {
        rest = nfa_.Optional(nfa_.Sequence({nfa_.CallRule(rule), rest}));
      }
      parts.push_back(rest);
    }
    return nfa_.Sequence(parts);
  }

  Result<uint32_t> Number() {
    uint32_t value = 0;
    const size_t begin = at_;
    for (; !AtEnd() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      value = std::min<uint32_t>(value * 10 + static_cast<uint32_t>(text_[at_] - '0'), 1'000'000);
    }
    if (at_ == begin || value > kMaxRepeat) {
      return Bad(StrCat("has no count of at most ", kMaxRepeat));
    }
    return value;
  }

  // Which rules can end without reading, to a fixed point; then whether from a rule's beginning,
  // without reading, it is called again.
  Status RefuseLeftRecursion() const {
    const uint32_t count = nfa_.num_rules();
    std::vector<bool> nullable(count);
    for (bool changed = true; changed;) {
      changed = false;
      for (uint32_t rule = 0; rule < count; ++rule) {
        if (nullable[rule] || !Look(rule, nullable, nullptr)) continue;
        nullable[rule] = true;
        changed = true;
      }
    }
    std::vector<std::vector<uint32_t>> calls(count);
    for (uint32_t rule = 0; rule < count; ++rule) Look(rule, nullable, &calls[rule]);
    // A ring among these calls: depth-first, with the rules on the way marked.
    std::vector<uint8_t> mark(count);  // 1: on the way, 2: done
    for (uint32_t first = 0; first < count; ++first) {
      std::vector<std::pair<uint32_t, size_t>> way = {{first, 0}};
      while (!way.empty()) {
        auto& [rule, next] = way.back();
        if (next == 0 && mark[rule] == 2) {
          way.pop_back();
          continue;
        }
        mark[rule] = 1;
        if (next == calls[rule].size()) {
          mark[rule] = 2;
          way.pop_back();
          continue;
        }
        const uint32_t to = calls[rule][next++];
        if (mark[to] == 1) return Bad("has a rule that calls itself before it reads anything");
        way.push_back({to, 0});
      }
    }
    return {};
  }

  // Whether the rule can end without reading; the rules it may call before it reads.
  bool Look(uint32_t rule, const std::vector<bool>& nullable, std::vector<uint32_t>* calls) const {
    std::vector<State> todo = {nfa_.rule_begin(rule)};
    std::map<State, bool> seen = {{todo[0], true}};
    bool ends = false;
    while (!todo.empty()) {
      const Nfa::Node& node = nfa_.node(todo.back());
      todo.pop_back();
      ends = ends || node.ends_rule;
      const auto visit = [&](State to) {
        if (seen.emplace(to, true).second) todo.push_back(to);
      };
      for (const State to : node.empty) visit(to);
      for (const Nfa::Call& call : node.calls) {
        if (calls != nullptr) calls->push_back(call.rule);
        if (nullable[call.rule]) visit(call.after);
      }
    }
    return ends;
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  Nfa& nfa_;
  TextWriter writer_;
  std::map<std::string, Rule> rules_;
};

}  // namespace

Result<Piece> CompileGbnf(std::string_view text, Nfa& nfa) { return Compiler(text, nfa).Compile(); }

}  // namespace cachalot::grammar
