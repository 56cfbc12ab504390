// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/text_automaton.h"

#include <algorithm>
#include <map>
#include <utility>

#include "cachalot/grammar/char_set.h"
#include "cachalot/tokenizer/utf8.h"

namespace cachalot::grammar {
namespace {

void AddAll(std::vector<TextAutomaton::Edge>& edges, const CharSet& set, uint32_t to) {
  for (const CharRange& range : set.ranges()) edges.push_back({range.low, range.high, to});
}

// States from which a text may end.
std::vector<bool> Living(const std::vector<TextAutomaton::State>& states) {
  std::vector<std::vector<uint32_t>> before(states.size());
  std::vector<bool> alive(states.size());
  std::vector<uint32_t> todo;
  for (uint32_t i = 0; i < states.size(); ++i) {
    for (const auto& edge : states[i].edges) before[edge.to].push_back(i);
    if (states[i].accepts) todo.push_back(i);
  }
  for (const uint32_t i : todo) alive[i] = true;
  while (!todo.empty()) {
    const uint32_t at = todo.back();
    todo.pop_back();
    for (const uint32_t from : before[at]) {
      if (alive[from]) continue;
      alive[from] = true;
      todo.push_back(from);
    }
  }
  return alive;
}

}  // namespace

uint32_t TextAutomaton::AddState(bool accepts) {
  states.push_back({.accepts = accepts, .edges = {}});
  return static_cast<uint32_t>(states.size() - 1);
}

TextAutomaton OfLength(uint32_t least, std::optional<uint32_t> most) {
  TextAutomaton out;
  const CharSet any = CharSet::All();
  const uint32_t last = most.value_or(least);
  for (uint32_t i = 0; i <= last; ++i) {
    out.AddState(i >= least);
    if (i > 0) AddAll(out.states[i - 1].edges, any, i);
  }
  if (!most) AddAll(out.states[last].edges, any, last);
  return out;
}

TextAutomaton Without(std::string_view word) {
  std::vector<uint32_t> letters;
  for (size_t at = 0; at < word.size();) {
    const tokenizer::Utf8Step step = tokenizer::NextUtf8(word, at);
    letters.push_back(step.code_point);
    at += step.size;
  }
  // State i: the last i characters are the word's first. A mismatch leads to 1 or 0.
  TextAutomaton out;
  for (uint32_t i = 0; i < letters.size(); ++i) {
    out.AddState(true);
    CharSet others(letters[i], letters[i]);
    if (i > 0) others.Add(letters[0], letters[0]);
    auto& edges = out.states.back().edges;
    AddAll(edges, others.Complement(), 0);
    if (i > 0 && letters[i] != letters[0]) edges.push_back({letters[0], letters[0], 1});
    if (i + 1 < letters.size()) edges.push_back({letters[i], letters[i], i + 1});
  }
  return out;
}

Result<TextAutomaton> Intersect(const TextAutomaton& a, const TextAutomaton& b) {
  TextAutomaton out;
  if (a.empty() || b.empty()) return out;
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> ids;
  std::vector<std::pair<uint32_t, uint32_t>> pairs;
  const auto visit = [&](uint32_t x, uint32_t y) {
    const auto [it, added] = ids.try_emplace({x, y}, static_cast<uint32_t>(pairs.size()));
    if (added) {
      pairs.push_back({x, y});
      out.AddState(a.states[x].accepts && b.states[y].accepts);
    }
    return it->second;
  };
  visit(0, 0);
  size_t num_edges = 0;
  for (uint32_t i = 0; i < pairs.size(); ++i) {
    const auto [x, y] = pairs[i];
    for (const auto& one : a.states[x].edges) {
      for (const auto& other : b.states[y].edges) {
        const uint32_t low = std::max(one.low, other.low);
        const uint32_t high = std::min(one.high, other.high);
        if (low > high) continue;
        const uint32_t to = visit(one.to, other.to);
        out.states[i].edges.push_back({low, high, to});
        ++num_edges;
      }
    }
    if (pairs.size() > TextAutomaton::kMaxStates || num_edges > TextAutomaton::kMaxEdges) {
      return Error{ErrorCode::kUnsupported, "too complex together"};
    }
  }
  Prune(out);
  return out;
}

void Prune(TextAutomaton& automaton) {
  if (automaton.empty()) return;
  const std::vector<bool> alive = Living(automaton.states);
  if (!alive[0]) {
    automaton.states.clear();
    return;
  }
  constexpr uint32_t kNone = UINT32_MAX;
  std::vector<uint32_t> ids(automaton.states.size(), kNone);
  std::vector<uint32_t> order = {0};
  ids[0] = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    for (const auto& edge : automaton.states[order[i]].edges) {
      if (!alive[edge.to] || ids[edge.to] != kNone) continue;
      ids[edge.to] = static_cast<uint32_t>(order.size());
      order.push_back(edge.to);
    }
  }
  std::vector<TextAutomaton::State> kept;
  kept.reserve(order.size());
  for (const uint32_t at : order) {
    TextAutomaton::State state = std::move(automaton.states[at]);
    std::erase_if(state.edges, [&](const auto& edge) { return !alive[edge.to]; });
    for (auto& edge : state.edges) edge.to = ids[edge.to];
    kept.push_back(std::move(state));
  }
  automaton.states = std::move(kept);
}

}  // namespace cachalot::grammar
