// SPDX-License-Identifier: Apache-2.0
// A recursive automaton over bytes: states with byte edges, empty edges and calls of rules. What
// every grammar here is compiled to. [docs/design/grammar.md]
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace cachalot::grammar {

using State = uint32_t;

// A piece of automaton under construction: enter at `begin`, leave at `end`.
struct Piece {
  State begin = 0;
  State end = 0;
};

class Nfa {
 public:
  struct ByteEdge {
    uint8_t low = 0, high = 0;  // inclusive
    State to = 0;
  };
  struct Call {
    uint32_t rule = 0;
    State after = 0;
  };
  struct Node {
    std::vector<ByteEdge> bytes;
    std::vector<State> empty;
    std::vector<Call> calls;
    bool ends_rule = false;
  };

  State AddState();
  void AddByte(State from, uint8_t low, uint8_t high, State to) {
    nodes_[from].bytes.push_back({low, high, to});
  }
  void AddEmpty(State from, State to) { nodes_[from].empty.push_back(to); }

  Piece Empty();
  Piece Range(uint8_t low, uint8_t high);
  Piece Literal(std::string_view text);
  Piece Sequence(const std::vector<Piece>& parts);  // of none: Empty
  Piece Choice(const std::vector<Piece>& options);  // at least one
  Piece Optional(Piece piece);
  Piece Star(Piece piece);  // any number of times

  // Rules are numbered first and defined later, so that they can call each other.
  uint32_t DeclareRule();
  void DefineRule(uint32_t rule, Piece body);
  Piece CallRule(uint32_t rule);

  // The state that can be taken instead: past edges that are a state's only way and read nothing.
  State SkipEmpty(State state) const;
  // The state does nothing but end its rule.
  bool OnlyEndsRule(State state) const {
    const Node& node = nodes_[state];
    return node.ends_rule && node.bytes.empty() && node.empty.empty() && node.calls.empty();
  }

  const Node& node(State state) const { return nodes_[state]; }
  State rule_begin(uint32_t rule) const { return rules_[rule]; }
  size_t num_states() const { return nodes_.size(); }
  uint32_t num_rules() const { return static_cast<uint32_t>(rules_.size()); }

 private:
  std::vector<Node> nodes_;
  std::vector<State> rules_;
};

}  // namespace cachalot::grammar
