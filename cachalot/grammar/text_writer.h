// SPDX-License-Identifier: Apache-2.0
// Text automata as pieces of a grammar. Internal to the module.
#pragma once

#include <cstdint>
#include <map>

#include "cachalot/grammar/char_set.h"
#include "cachalot/grammar/nfa.h"
#include "cachalot/grammar/text_automaton.h"

namespace cachalot::grammar {

// A set of characters that occurs again is a rule, written once. One writer a grammar.
class TextWriter {
 public:
  explicit TextWriter(Nfa& nfa) : nfa_(nfa) {}

  // One of these characters as it is, in UTF-8; of none: no text.
  Piece Character(const CharSet& set);
  // The text as it is, in UTF-8.
  Piece Plain(const TextAutomaton& automaton) { return Write(automaton, /*in_json=*/false); }
  // Inside a JSON string, quotes not included: what JSON wants escaped is, in its shortest form,
  // and nothing else.
  Piece InJson(const TextAutomaton& automaton) { return Write(automaton, /*in_json=*/true); }

 private:
  Piece Write(const TextAutomaton& automaton, bool in_json);
  void Edge(State from, const CharSet& set, State to, bool in_json);
  uint32_t Rule(const CharSet& set, bool in_json);

  Nfa& nfa_;
  std::map<std::pair<bool, CharSet>, uint32_t> rules_;
};

}  // namespace cachalot::grammar
