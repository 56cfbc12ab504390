// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/text_writer.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "cachalot/base/strings.h"
#include "cachalot/tokenizer/utf8.h"

namespace cachalot::grammar {
namespace {

using ByteRange = std::pair<uint8_t, uint8_t>;

std::string Utf8(uint32_t code_point) {
  std::string bytes;
  tokenizer::AppendUtf8(static_cast<char32_t>(code_point), bytes);
  return bytes;
}

// Cuts a range of characters where UTF-8 changes its length or carries into a higher byte: what is
// left has a range of its own for each byte. [RFC 3629, section 3]
void Split(uint32_t low, uint32_t high, std::vector<std::vector<ByteRange>>& out) {
  for (const uint32_t last : {0x7Fu, 0x7FFu, 0xFFFFu}) {
    if (low > last || high <= last) continue;
    Split(low, last, out);
    return Split(last + 1, high, out);
  }
  for (uint32_t i = 1; i <= 3 && high >= 0x80; ++i) {
    const uint32_t mask = (1u << (6 * i)) - 1;
    if ((low & ~mask) == (high & ~mask)) continue;
    if ((low & mask) != 0) {
      Split(low, low | mask, out);
      return Split((low | mask) + 1, high, out);
    }
    if ((high & mask) != mask) {
      Split(low, (high & ~mask) - 1, out);
      return Split(high & ~mask, high, out);
    }
  }
  const std::string first = Utf8(low);
  const std::string last = Utf8(high);
  std::vector<ByteRange> bytes;
  for (size_t i = 0; i < first.size(); ++i) {
    bytes.push_back({static_cast<uint8_t>(first[i]), static_cast<uint8_t>(last[i])});
  }
  out.push_back(std::move(bytes));
}

bool NeedsEscape(uint32_t c) { return c < 0x20 || c == '"' || c == '\\'; }

std::string Escape(uint32_t c) {
  constexpr std::string_view kNamed = "\"\\\b\f\n\r\t";
  constexpr std::string_view kNames = "\"\\bfnrt";
  const size_t at = kNamed.find(static_cast<char>(c));
  return at == std::string_view::npos ? fmt::format("\\u{:04x}", c) : StrCat("\\", kNames[at]);
}

}  // namespace

// Escapes and bytes beyond ASCII go through a rule; plain ASCII, most of what patterns hold, does
// not, since a call costs a stack at every byte.
void TextWriter::Edge(State from, const CharSet& set, State to, bool in_json) {
  CharSet direct, others;
  for (const CharRange& range : set.ranges()) {
    for (uint32_t c = range.low; c <= std::min(range.high, 0x7Fu); ++c) {
      (in_json && NeedsEscape(c) ? others : direct).Add(c, c);
    }
    if (range.high >= 0x80) others.Add(std::max(range.low, 0x80u), range.high);
  }
  for (const CharRange& range : direct.ranges()) {
    nfa_.AddByte(from, static_cast<uint8_t>(range.low), static_cast<uint8_t>(range.high), to);
  }
  if (others.empty()) return;
  const Piece call = nfa_.CallRule(Rule(others, in_json));
  nfa_.AddEmpty(from, call.begin);
  nfa_.AddEmpty(call.end, to);
}

uint32_t TextWriter::Rule(const CharSet& set, bool in_json) {
  const auto [it, added] = rules_.try_emplace({in_json, set}, 0);
  if (!added) return it->second;
  std::vector<Piece> options;
  for (const CharRange& range : set.ranges()) {
    uint32_t low = range.low;
    for (; low <= std::min(range.high, 0x7Fu); ++low) {
      options.push_back(nfa_.Literal(in_json && NeedsEscape(low) ? Escape(low) : Utf8(low)));
    }
    if (low > range.high) continue;
    std::vector<std::vector<ByteRange>> sequences;
    Split(low, range.high, sequences);
    for (const auto& bytes : sequences) {
      std::vector<Piece> parts;
      for (const auto& [first, last] : bytes) parts.push_back(nfa_.Range(first, last));
      options.push_back(nfa_.Sequence(parts));
    }
  }
  const uint32_t rule = nfa_.DeclareRule();
  nfa_.DefineRule(rule, nfa_.Choice(options));
  return it->second = rule;
}

Piece TextWriter::Character(const CharSet& set) {
  const Piece piece{nfa_.AddState(), nfa_.AddState()};
  if (!set.empty()) Edge(piece.begin, set, piece.end, /*in_json=*/false);
  return piece;
}

Piece TextWriter::Write(const TextAutomaton& automaton, bool in_json) {
  std::vector<State> states;
  for (size_t i = 0; i < automaton.states.size(); ++i) states.push_back(nfa_.AddState());
  const Piece all{states.empty() ? nfa_.AddState() : states[0], nfa_.AddState()};
  for (size_t i = 0; i < automaton.states.size(); ++i) {
    const TextAutomaton::State& state = automaton.states[i];
    std::map<uint32_t, CharSet> by_target;
    for (const auto& edge : state.edges) by_target[edge.to].Add(edge.low, edge.high);
    for (const auto& [to, set] : by_target) Edge(states[i], set, states[to], in_json);
    if (state.accepts) nfa_.AddEmpty(states[i], all.end);
  }
  return all;
}

}  // namespace cachalot::grammar
