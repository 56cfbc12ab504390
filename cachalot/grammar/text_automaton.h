// SPDX-License-Identifier: Apache-2.0
// Sets of texts as automata over characters. Conditions on one text (a pattern, a format, a length,
// bounds of a number) are each brought to one, intersected, and written into a grammar at the end.
// Internal to the module. [docs/design/grammar.md]
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::grammar {

// Without empty edges. Several edges of a state may read the same character.
struct TextAutomaton {
  struct Edge {
    uint32_t low = 0, high = 0;  // characters, inclusive
    uint32_t to = 0;
  };
  struct State {
    bool accepts = false;
    std::vector<Edge> edges;
  };
  // Past this many states, or edges, a condition is refused as too complex.
  static constexpr size_t kMaxStates = 50'000;
  static constexpr size_t kMaxEdges = 500'000;

  std::vector<State> states;  // states[0] begins; of none: no text at all

  bool empty() const { return states.empty(); }
  uint32_t AddState(bool accepts);
};

// Texts of so many characters.
TextAutomaton OfLength(uint32_t least, std::optional<uint32_t> most);
// Texts in which `word` (ASCII or not, at least one character, its first occurring only once in it)
// does not occur.
TextAutomaton Without(std::string_view word);
// Texts that are in both; pruned. kUnsupported if it grows too large.
Result<TextAutomaton> Intersect(const TextAutomaton& a, const TextAutomaton& b);
// Drops states that are never reached or from which no text ends, so that a walk cannot get stuck.
void Prune(TextAutomaton& automaton);

}  // namespace cachalot::grammar
