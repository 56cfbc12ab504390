// SPDX-License-Identifier: Apache-2.0
// Walks a text through a grammar and says which tokens may come next.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cachalot/grammar/grammar.h"
#include "cachalot/grammar/vocabulary.h"

namespace cachalot::grammar {

// A deterministic view of a grammar, built as far as texts go: sets of (state, stack) become
// numbered positions, and each position's mask is computed once, for all requests of the grammar.
// Thread-safe.
class Automaton {
 public:
  using Position = uint32_t;
  static constexpr Position kDead = 0;  // no continuation

  Automaton(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const Vocabulary> vocabulary);

  Position start() const { return start_; }
  // kDead if the bytes are not allowed there.
  Position Advance(Position from, std::string_view bytes);
  // The text up to here is whole.
  bool Complete(Position position);
  // Clears the bits of tokens that are not allowed; bits of other ids too.
  void ApplyMask(Position position, std::span<uint64_t> mask);

  const Vocabulary& vocabulary() const { return *vocabulary_; }
  size_t num_masks() const;  // computed so far
  size_t bytes() const;      // about what this takes, without the vocabulary

 private:
  using Config = std::pair<State, uint32_t>;  // a state and the stack under it
  struct Entry {
    std::vector<Config> configs;
    bool complete = false;
    std::array<Position, 256> next;  // kUnknown: not asked yet
    std::vector<uint64_t> mask;      // empty: not asked yet
  };
  static constexpr Position kUnknown = UINT32_MAX;

  Position Intern(std::vector<Config> configs);
  void Close(std::vector<Config>& configs, bool& complete);
  uint32_t Push(State after, uint32_t below);
  Position NextByte(Position from, uint8_t byte);
  std::vector<uint64_t> ComputeMask(Position position);

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Entry>> entries_;
  std::map<std::vector<Config>, Position> positions_;
  struct Stack {
    State after = 0;     // where to go on
    uint32_t below = 0;  // the stack under it; 0: empty
    uint32_t depth = 0;
  };
  std::vector<Stack> stacks_;
  std::map<std::pair<State, uint32_t>, uint32_t> stack_ids_;
  Position start_ = kDead;
  size_t num_masks_ = 0;
  size_t num_configs_ = 0;
  size_t kept_mask_bytes_ = 0;
};

// One text. Not thread-safe.
class Matcher {
 public:
  Matcher(std::shared_ptr<Automaton> automaton, std::vector<uint32_t> end_tokens);

  // Clears the bit of every id that may not come next; at least one stays.
  void ApplyMask(std::span<uint64_t> mask);
  // False if the token was not allowed; the text then stays what it was.
  bool Accept(uint32_t token);
  bool AcceptBytes(std::string_view bytes);
  std::string_view TokenBytes(uint32_t token) const;
  bool complete() const { return automaton_->Complete(position_); }

 private:
  std::shared_ptr<Automaton> automaton_;
  std::vector<uint32_t> end_tokens_;
  Automaton::Position position_;
};

}  // namespace cachalot::grammar
