// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/matcher.h"

#include <algorithm>
#include <set>
#include <utility>

namespace cachalot::grammar {
namespace {

// Deeper nesting is refused by having no continuation: a text that only opens would never end, and
// readers have limits of their own.
constexpr uint32_t kMaxStack = 256;
// Of an automaton; a grammar that needs more (a long text nested in ever new ways) ends there.
constexpr size_t kMaxPositions = size_t{1} << 18;

// States of one position. A grammar that is in more of them at once is so ambiguous that nobody
// meant it, and would cost as much time and memory as it likes.
constexpr size_t kMaxConfigs = 20'000;
constexpr uint32_t kNoStack = UINT32_MAX;  // too deep
// Masks that an automaton keeps: of 4,096 positions with 128 Ki tokens. Others are computed anew.
constexpr size_t kMaxMaskBytes = size_t{64} << 20;

void SetBit(std::span<uint64_t> mask, uint32_t id) { mask[id / 64] |= uint64_t{1} << (id % 64); }

}  // namespace

Automaton::Automaton(std::shared_ptr<const Grammar> grammar,
                     std::shared_ptr<const Vocabulary> vocabulary)
    : grammar_(std::move(grammar)), vocabulary_(std::move(vocabulary)) {
  entries_.push_back(std::make_unique<Entry>());  // kDead
  entries_[kDead]->next.fill(kDead);
  stacks_.push_back({});  // the empty stack
  start_ = Intern({{grammar_->begin(), 0}});
}

Automaton::Position Automaton::Intern(std::vector<Config> configs) {
  bool complete = false;
  Close(configs, complete);
  if (configs.empty() && !complete) return kDead;
  // A complete text with and without continuations are different positions.
  std::vector<Config> key = configs;
  if (complete) key.push_back({UINT32_MAX, 0});
  const auto known = positions_.find(key);
  if (known != positions_.end()) return known->second;
  if (entries_.size() >= kMaxPositions) return kDead;
  const auto position = static_cast<Position>(entries_.size());
  entries_.push_back(std::make_unique<Entry>());
  Entry& entry = *entries_.back();
  num_configs_ += configs.size();
  entry.configs = std::move(configs);
  entry.complete = complete;
  entry.next.fill(kUnknown);
  positions_.emplace(std::move(key), position);
  return position;
}

// Follows empty edges, calls and ends of rules. What is kept are the states that read a byte.
void Automaton::Close(std::vector<Config>& configs, bool& complete) {
  std::set<Config> seen(configs.begin(), configs.end());
  std::vector<Config> todo(seen.begin(), seen.end());
  std::vector<Config> reading;
  const auto visit = [&](State state, uint32_t stack) {
    if (seen.insert({state, stack}).second) todo.push_back({state, stack});
  };
  while (!todo.empty()) {
    if (seen.size() > kMaxConfigs) {
      configs.clear();
      complete = false;
      return;
    }
    const auto [state, stack] = todo.back();
    todo.pop_back();
    const Nfa::Node& node = grammar_->nfa().node(state);
    if (!node.bytes.empty()) reading.push_back({state, stack});
    for (const State next : node.empty) visit(next, stack);
    for (const Nfa::Call& call : node.calls) {
      // Equal futures are to be equal numbers: alternatives that only differ in where they join
      // would else double the stacks at every level.
      const State after = grammar_->nfa().SkipEmpty(call.after);
      if (grammar_->nfa().OnlyEndsRule(after)) {  // nothing left to come back to
        visit(grammar_->nfa().rule_begin(call.rule), stack);
        continue;
      }
      const uint32_t pushed = Push(after, stack);
      if (pushed != kNoStack) visit(grammar_->nfa().rule_begin(call.rule), pushed);
    }
    if (node.ends_rule) {
      if (stack == 0) {
        complete = true;
      } else {
        visit(stacks_[stack].after, stacks_[stack].below);
      }
    }
  }
  std::ranges::sort(reading);
  configs = std::move(reading);
}

uint32_t Automaton::Push(State after, uint32_t below) {
  const uint32_t depth = stacks_[below].depth + 1;
  if (depth > kMaxStack) return kNoStack;
  const auto [it, added] =
      stack_ids_.try_emplace({after, below}, static_cast<uint32_t>(stacks_.size()));
  if (added) stacks_.push_back({after, below, depth});
  return it->second;
}

Automaton::Position Automaton::NextByte(Position from, uint8_t byte) {
  if (entries_[from]->next[byte] != kUnknown) return entries_[from]->next[byte];
  std::vector<Config> configs;
  for (const auto& [state, stack] : entries_[from]->configs) {
    for (const Nfa::ByteEdge& edge : grammar_->nfa().node(state).bytes) {
      if (edge.low <= byte && byte <= edge.high) configs.push_back({edge.to, stack});
    }
  }
  const Position next = configs.empty() ? kDead : Intern(std::move(configs));
  entries_[from]->next[byte] = next;
  return next;
}

Automaton::Position Automaton::Advance(Position from, std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  for (const char c : bytes) from = NextByte(from, static_cast<uint8_t>(c));
  return from;
}

bool Automaton::Complete(Position position) {
  const std::lock_guard lock(mutex_);
  return entries_[position]->complete;
}

void Automaton::ApplyMask(Position position, std::span<uint64_t> mask) {
  const std::lock_guard lock(mutex_);
  std::vector<uint64_t> computed;
  if (entries_[position]->mask.empty()) {
    computed = ComputeMask(position);
    if (kept_mask_bytes_ < kMaxMaskBytes) {
      kept_mask_bytes_ += computed.size() * sizeof(uint64_t);
      entries_[position]->mask = std::move(computed);
    }
  }
  const std::vector<uint64_t>& allowed = computed.empty() ? entries_[position]->mask : computed;
  for (size_t i = 0; i < mask.size(); ++i) mask[i] &= i < allowed.size() ? allowed[i] : 0;
}

// Down the tree of tokens, along the bytes that lead somewhere.
std::vector<uint64_t> Automaton::ComputeMask(Position position) {
  std::vector<uint64_t> mask((vocabulary_->size() + 63) / 64);
  std::vector<Position> path(vocabulary_->max_depth() + 1);  // path[i]: after i bytes
  path[0] = position;
  const std::vector<Vocabulary::Node>& nodes = vocabulary_->nodes();
  for (uint32_t i = 0; i < nodes.size();) {
    const Vocabulary::Node& node = nodes[i];
    const Position next = NextByte(path[node.depth - 1u], node.byte);
    if (next == kDead) {
      i = node.end;
      continue;
    }
    path[node.depth] = next;
    for (uint32_t k = node.ids_begin; k < node.ids_end; ++k) SetBit(mask, vocabulary_->ids()[k]);
    ++i;
  }
  ++num_masks_;
  return mask;
}

size_t Automaton::bytes() const {
  const std::lock_guard lock(mutex_);
  // An entry's configurations are there twice, in it and in the key of positions_.
  return entries_.size() * (sizeof(Entry) + 128) + num_configs_ * 2 * sizeof(Config) +
         kept_mask_bytes_;
}

size_t Automaton::num_masks() const {
  const std::lock_guard lock(mutex_);
  return num_masks_;
}

Matcher::Matcher(std::shared_ptr<Automaton> automaton, std::vector<uint32_t> end_tokens)
    : automaton_(std::move(automaton)),
      end_tokens_(std::move(end_tokens)),
      position_(automaton_->start()) {}

void Matcher::ApplyMask(std::span<uint64_t> mask) {
  const std::vector<uint64_t> before(mask.begin(), mask.end());
  automaton_->ApplyMask(position_, mask);
  const bool stuck = std::ranges::all_of(mask, [](uint64_t word) { return word == 0; });
  // The end is allowed where the text is whole, and forced where nothing else is left.
  if (!stuck && !complete()) return;
  for (const uint32_t id : end_tokens_) {
    if (id / 64 < mask.size()) mask[id / 64] |= before[id / 64] & (uint64_t{1} << (id % 64));
  }
}

std::string_view Matcher::TokenBytes(uint32_t token) const {
  if (token >= automaton_->vocabulary().size()) return {};
  return automaton_->vocabulary().bytes(token);
}

bool Matcher::Accept(uint32_t token) {
  const std::string_view bytes = TokenBytes(token);
  return !bytes.empty() && AcceptBytes(bytes);
}

bool Matcher::AcceptBytes(std::string_view bytes) {
  const Automaton::Position next = automaton_->Advance(position_, bytes);
  if (next == Automaton::kDead) return false;
  position_ = next;
  return true;
}

}  // namespace cachalot::grammar
