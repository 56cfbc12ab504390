// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/number_automaton.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "cachalot/base/strings.h"

namespace cachalot::grammar {
namespace {

constexpr size_t kMaxDecimalDigits = 40;
constexpr size_t kNumberDigits = 15;   // what doubles tell apart
constexpr size_t kIntegerDigits = 17;  // without a bound
constexpr size_t kBoundDigits = 20;    // those of 64 bits
constexpr uint64_t kMaxDivisor = 10'000;

// The digit at `i`, and zeros behind the last.
char DigitAt(const std::string& digits, size_t i) { return i < digits.size() ? digits[i] : '0'; }

bool AllZero(const std::string& digits, size_t from) {
  return digits.find_first_not_of('0', std::min(from, digits.size())) == std::string::npos;
}

// Numbers >= 0 between two bounds, digit by digit. While a text equals the beginning of a bound it
// is tight to it, and the next digit decides; texts of each length are apart, so that the first
// digit's place is known.
class Magnitudes {
 public:
  struct Bound {
    const Decimal* at = nullptr;  // null: none
    bool open = false;
  };
  Magnitudes(bool integer, Bound low, Bound high) : integer_(integer), low_(low), high_(high) {}

  // Adds the states to `out` and the first digits' edges to `begin`.
  void Write(TextAutomaton& out, uint32_t begin) {
    out_ = &out;
    const size_t integer_digits = high_.at != nullptr ? kBoundDigits : kIntegerDigits;
    const size_t most = integer_ ? integer_digits : kNumberDigits;
    for (size_t length = 1; length <= most; ++length) {
      const bool too_small = low_.at != nullptr && low_.at->whole.size() > length;
      const bool too_large = high_.at != nullptr && high_.at->whole.size() < length;
      if (too_small || too_large) continue;
      ids_.clear();
      length_ = length;
      decimals_ = integer_ ? 0 : most - length;
      const Place first{.low_tight = low_.at != nullptr && low_.at->whole.size() == length,
                        .high_tight = high_.at != nullptr && high_.at->whole.size() == length};
      AddDigits(begin, first, length > 1 ? '1' : '0');
      while (!todo_.empty()) {
        const auto [place, state] = todo_.back();
        todo_.pop_back();
        Expand(place, state);
      }
    }
  }

 private:
  struct Place {
    size_t whole = 0;     // digits read before the point
    size_t decimals = 0;  // and after it
    bool point = false;
    bool low_tight = false, high_tight = false;
    auto operator<=>(const Place&) const = default;
  };

  bool Accepts(const Place& p) const {
    if (p.whole < length_ || (p.point && p.decimals == 0)) return false;
    // Tight: equal so far, and what the bound has left decides.
    if (p.low_tight && (low_.open || !AllZero(low_.at->fraction, p.decimals))) return false;
    return !p.high_tight || !high_.open || !AllZero(high_.at->fraction, p.decimals);
  }

  static char BoundDigit(const Decimal& bound, const Place& p) {
    return p.point ? DigitAt(bound.fraction, p.decimals) : bound.whole[p.whole];
  }

  void Expand(const Place& p, uint32_t state) {
    if (p.point ? p.decimals < decimals_ : p.whole < length_) return AddDigits(state, p, '0');
    if (p.point || decimals_ == 0) return;
    Place next = p;
    next.point = true;
    const uint32_t to = Visit(next);  // may move the states
    out_->states[state].edges.push_back({'.', '.', to});
  }

  void AddDigits(uint32_t state, const Place& p, char least) {
    for (char digit = least; digit <= '9'; ++digit) {
      Place next = p;
      if (p.low_tight) {
        const char bound = BoundDigit(*low_.at, p);
        if (digit < bound) continue;
        next.low_tight = digit == bound;
      }
      if (p.high_tight) {
        const char bound = BoundDigit(*high_.at, p);
        if (digit > bound) continue;
        next.high_tight = digit == bound;
      }
      ++(p.point ? next.decimals : next.whole);
      const auto c = static_cast<uint32_t>(digit);
      const uint32_t to = Visit(next);
      out_->states[state].edges.push_back({c, c, to});
    }
  }

  uint32_t Visit(const Place& p) {
    const auto [it, added] = ids_.try_emplace(p, 0);
    if (added) {
      it->second = out_->AddState(Accepts(p));
      todo_.push_back({p, it->second});
    }
    return it->second;
  }

  const bool integer_;
  const Bound low_, high_;
  size_t length_ = 0, decimals_ = 0;
  TextAutomaton* out_ = nullptr;
  std::map<Place, uint32_t> ids_;
  std::vector<std::pair<Place, uint32_t>> todo_;
};

}  // namespace

std::optional<Decimal> ToDecimal(const Json& json) {
  if (!json.is_number()) return {};
  std::string text = json.dump();
  Decimal out;
  if (text.starts_with('-')) {
    out.negative = true;
    text.erase(0, 1);
  }
  int exponent = 0;
  if (const size_t e = text.find('e'); e != std::string::npos) {
    const char* begin = text.data() + e + 1;
    if (*begin == '+') ++begin;
    std::from_chars(begin, text.data() + text.size(), exponent);
    text.resize(e);
  }
  const size_t point = std::min(text.find('.'), text.size());
  std::string digits = text.substr(0, point) + text.substr(std::min(point + 1, text.size()));
  const int place = static_cast<int>(point) + exponent;  // digits before the point
  constexpr int kMost = kMaxDecimalDigits;
  if (place > kMost || place < -kMost || digits.size() > kMaxDecimalDigits) return {};
  if (place < 0) digits.insert(0, static_cast<size_t>(-place), '0');
  const auto whole = static_cast<size_t>(std::max(place, 0));
  if (digits.size() < whole) digits.append(whole - digits.size(), '0');
  out.whole = digits.substr(0, whole);
  out.fraction = digits.substr(whole);
  out.whole.erase(0, std::min(out.whole.find_first_not_of('0'), out.whole.size()));
  if (out.whole.empty()) out.whole = "0";
  out.fraction.erase(out.fraction.find_last_not_of('0') + 1);
  if (out.IsZero()) out.negative = false;
  return out;
}

TextAutomaton NumbersBetween(bool integer, const NumberBounds& bounds) {
  const Decimal zero{.negative = false, .whole = "0", .fraction = ""};
  const auto& [low, high, low_open, high_open] = bounds;
  TextAutomaton out;
  const uint32_t begin = out.AddState(false);
  const bool positive = !high || !high->negative;
  if (positive) {
    Magnitudes::Bound least{&zero, false};
    if (low && !low->negative) least = {&*low, low_open};
    Magnitudes(integer, least, {high ? &*high : nullptr, high_open}).Write(out, begin);
  }
  if (!low || low->negative) {
    // Of the numbers below zero the magnitudes, so the bounds change places.
    const uint32_t minus = out.AddState(false);
    out.states[begin].edges.push_back({'-', '-', minus});
    Magnitudes::Bound least{&zero, true};
    if (high && high->negative) least = {&*high, high_open};
    Magnitudes(integer, least, {low ? &*low : nullptr, low_open}).Write(out, minus);
  }
  Prune(out);
  return out;
}

Result<TextAutomaton> MultiplesOf(const Decimal& divisor) {
  const std::string digits = divisor.whole + divisor.fraction;
  uint64_t number = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (parsed.ec != std::errc() || number > kMaxDivisor) {
    return Error{ErrorCode::kUnsupported,
                 StrCat("only divisors of at most ", kMaxDivisor, " (without the point)")};
  }
  const size_t decimals = divisor.fraction.size();
  // States: nothing read, a minus, then (remainder of the digits so far, decimals read); decimals
  // that are missing count as zeros.
  TextAutomaton out;
  const uint32_t begin = out.AddState(false);
  const uint32_t minus = out.AddState(false);
  out.states[begin].edges.push_back({'-', '-', minus});
  const auto columns = static_cast<uint32_t>(decimals + 2);  // whole, point, 1, 2, ..
  if (number * columns > TextAutomaton::kMaxStates) {
    return Error{ErrorCode::kUnsupported, "too many digits"};
  }
  const auto id = [&](uint64_t remainder, size_t column) {
    return static_cast<uint32_t>(2 + remainder * columns + column);
  };
  for (uint64_t remainder = 0; remainder < number; ++remainder) {
    for (size_t column = 0; column < columns; ++column) {
      const size_t read = column > 0 ? column - 1 : 0;
      uint64_t whole = remainder;
      for (size_t i = read; i < decimals; ++i) whole = whole * 10 % number;
      TextAutomaton::State& state = out.states[out.AddState(whole == 0 && column != 1)];
      if (column == 0 && decimals > 0) state.edges.push_back({'.', '.', id(remainder, 1)});
      if (column == columns - 1 && column > 0) continue;
      for (uint32_t d = 0; d < 10; ++d) {
        state.edges.push_back(
            {'0' + d, '0' + d, id((remainder * 10 + d) % number, column == 0 ? 0 : column + 1)});
      }
    }
  }
  for (uint32_t d = 0; d < 10; ++d) {
    for (const uint32_t from : {begin, minus}) {
      out.states[from].edges.push_back({'0' + d, '0' + d, id(d % number, 0)});
    }
  }
  return out;
}

}  // namespace cachalot::grammar
