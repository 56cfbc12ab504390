// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/nfa.h"

namespace cachalot::grammar {

State Nfa::AddState() {
  nodes_.emplace_back();
  return static_cast<State>(nodes_.size() - 1);
}

Piece Nfa::Empty() {
  const State state = AddState();
  return {state, state};
}

Piece Nfa::Range(uint8_t low, uint8_t high) {
  const Piece piece{AddState(), AddState()};
  AddByte(piece.begin, low, high, piece.end);
  return piece;
}

Piece Nfa::Literal(std::string_view text) {
  Piece piece = Empty();
  for (const char c : text) {
    const State next = AddState();
    AddByte(piece.end, static_cast<uint8_t>(c), static_cast<uint8_t>(c), next);
    piece.end = next;
  }
  return piece;
}

Piece Nfa::Sequence(const std::vector<Piece>& parts) {
  Piece all = Empty();
  for (const Piece& part : parts) {
    AddEmpty(all.end, part.begin);
    all.end = part.end;
  }
  return all;
}

Piece Nfa::Choice(const std::vector<Piece>& options) {
  const Piece all{AddState(), AddState()};
  for (const Piece& option : options) {
    AddEmpty(all.begin, option.begin);
    AddEmpty(option.end, all.end);
  }
  return all;
}

Piece Nfa::Optional(Piece piece) { return Choice({Empty(), piece}); }

Piece Nfa::Star(Piece piece) {
  const Piece all = Empty();
  AddEmpty(all.end, piece.begin);
  AddEmpty(piece.end, all.begin);
  return all;
}

State Nfa::SkipEmpty(State state) const {
  // Empty edges may form a ring; further than this is never worth while.
  for (int i = 0; i < 64; ++i) {
    const Node& node = nodes_[state];
    const bool only = node.empty.size() == 1 && node.bytes.empty() && node.calls.empty();
    if (!only || node.ends_rule) break;
    state = node.empty[0];
  }
  return state;
}

uint32_t Nfa::DeclareRule() {
  rules_.push_back(0);
  return static_cast<uint32_t>(rules_.size() - 1);
}

void Nfa::DefineRule(uint32_t rule, Piece body) {
  rules_[rule] = body.begin;
  nodes_[body.end].ends_rule = true;
}

Piece Nfa::CallRule(uint32_t rule) {
  const Piece piece{AddState(), AddState()};
  nodes_[piece.begin].calls.push_back({rule, piece.end});
  return piece;
}

}  // namespace cachalot::grammar
