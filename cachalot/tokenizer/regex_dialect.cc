// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/regex_dialect.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "cachalot/base/strings.h"

namespace cachalot::tokenizer {
namespace {

// Unicode White_Space and its complement, as the inside of a class.
constexpr std::string_view kSpace =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
    "\\x{205f}\\x{3000}";
constexpr std::string_view kNotSpace =
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"
    "\\x{3001}-\\x{10ffff}";

constexpr std::string_view kSameEscapes = "dDrntf";
constexpr std::array<std::string_view, 7> kGroups = {
    "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};

bool IsAlphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

bool IsHex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
}

class Translator {
 public:
  Translator(std::string_view regex, std::string_view name) : regex_(regex), name_(name) {}

  Result<std::string> Run() {
    while (at_ < regex_.size()) CACHALOT_RETURN_IF_ERROR(Step());
    return std::move(out_);
  }

 private:
  bool Ahead(std::string_view s) const { return regex_.substr(at_).starts_with(s); }

  Status Take(size_t size) {
    out_ += regex_.substr(at_, size);
    at_ += size;
    return {};
  }

  Error Refuse(size_t size) const {
    return {ErrorCode::kUnsupported,
            StrCat(name_, ": expression has '", regex_.substr(at_, size), "' at byte ", at_,
                   ", which this tokenizer does not read")};
  }

  Status Step() {
    if (Ahead("\\")) return Escape();
    if (in_class_) return ClassStep();
    if (Ahead("[")) return OpenClass();
    if (Ahead("(*")) return Refuse(2);
    if (Ahead("(?")) return Group();
    if (Ahead("{")) return Count();
    return Take(1);
  }

  Status OpenClass() {
    in_class_ = true;
    CACHALOT_RETURN_IF_ERROR(Take(Ahead("[^") ? 2 : 1));
    // PCRE2 reads a bracket in first place as itself, Oniguruma may not.
    if (Ahead("]")) return Refuse(1);
    return {};
  }

  Status ClassStep() {
    if (Ahead("[") || Ahead("&&")) return Refuse(2);
    if (Ahead("]")) in_class_ = false;
    return Take(1);
  }

  Status Group() {
    for (const std::string_view group : kGroups) {
      if (Ahead(group)) return Take(group.size());
    }
    return Refuse(4);
  }

  // {n}, {n,}, {n,m}. PCRE2 reads {,n} as text and a + behind as possessive, Oniguruma as {0,n} and
  // as one more repeat.
  Status Count() {
    const size_t close = regex_.find('}', at_);
    if (close == std::string_view::npos || Ahead("{,")) return Refuse(2);
    if (regex_.substr(close + 1).starts_with("+")) return Refuse(close + 2 - at_);
    return Take(close + 1 - at_);
  }

  Status Escape() {
    if (at_ + 1 >= regex_.size()) return Refuse(1);
    const char c = regex_[at_ + 1];
    if (c == 's') return Space(kSpace);
    if (c == 'S') return Space(kNotSpace);
    if (c == 'p' || c == 'P') return Ahead(c == 'p' ? "\\p{" : "\\P{") ? Braced() : Refuse(3);
    if (c == 'x') return Ahead("\\x{") ? Braced() : Refuse(4);
    if (c == 'u') return FourDigits();
    if (kSameEscapes.find(c) != std::string_view::npos || !IsAlphanumeric(c)) return Take(2);
    return Refuse(2);
  }

  Status Space(std::string_view members) {
    out_ += in_class_ ? std::string(members) : StrCat("[", members, "]");
    at_ += 2;
    return {};
  }

  // \p{...}, \x{...}
  Status Braced() {
    const size_t close = regex_.find('}', at_);
    if (close == std::string_view::npos) return Refuse(3);
    return Take(close + 1 - at_);
  }

  Status FourDigits() {
    const std::string_view digits = regex_.substr(at_ + 2, 4);
    if (digits.size() != 4 || !std::all_of(digits.begin(), digits.end(), IsHex)) return Refuse(6);
    out_ += StrCat("\\x{", digits, "}");
    at_ += 6;
    return {};
  }

  std::string_view regex_, name_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

Result<std::string> TranslateRegex(std::string_view regex, std::string_view name) {
  if (regex.size() > kMaxRegexBytes) {
    return Error{ErrorCode::kUnsupported, StrCat(name, ": expression of ", regex.size(),
                                                 " bytes, at most ", kMaxRegexBytes, " are read")};
  }
  return Translator(regex, name).Run();
}

std::string QuoteRegex(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    // An escaped letter would get a meaning, an escaped byte above 7F would not be UTF-8.
    if (static_cast<uint8_t>(c) < 0x80 && !IsAlphanumeric(c)) out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

}  // namespace cachalot::tokenizer
