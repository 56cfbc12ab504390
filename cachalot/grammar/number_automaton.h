// SPDX-License-Identifier: Apache-2.0
// Numbers between bounds, and multiples, as automata over their decimal digits. Internal to the
// module.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cachalot/base/error.h"
#include "cachalot/base/json.h"
#include "cachalot/grammar/text_automaton.h"

namespace cachalot::grammar {

// A decimal number, exactly: -12.5 is {true, "12", "5"}, 0 {false, "0", ""}.
struct Decimal {
  bool negative = false;
  std::string whole;     // no leading zeros, "0" at least
  std::string fraction;  // no trailing zeros

  bool IsZero() const { return whole == "0" && fraction.empty(); }
};

// Of a JSON number, as its shortest text has it. nullopt: none, or of more than 40 digits.
std::optional<Decimal> ToDecimal(const Json& json);

struct NumberBounds {
  std::optional<Decimal> low, high;
  bool low_open = false, high_open = false;  // the bound itself is outside
};

// Texts of JSON without exponent; no -0. Numbers have at most 15 digits in all: then different
// texts are different doubles, and open bounds hold for whoever reads them as such. Integers have
// as many as their bound, at most 20, and 17 where there is none. Empty if nothing lies between.
TextAutomaton NumbersBetween(bool integer, const NumberBounds& bounds);

// Multiples of `divisor` > 0 with no more decimals than it has. kUnsupported if its digits, without
// the point, are more than 10,000.
Result<TextAutomaton> MultiplesOf(const Decimal& divisor);

}  // namespace cachalot::grammar
