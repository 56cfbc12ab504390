// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <queue>
#include <unordered_map>
#include <utility>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"
#include "cachalot/tokenizer/tokenizer_parts.h"
#include "cachalot/tokenizer/utf8.h"

namespace cachalot::tokenizer {
namespace {

// A piece longer than this (a line of dashes, a base64 blob) is counted in parts: one that is
// walked again for each of thousands of merges would cost its length each time.
constexpr size_t kMaxPieceBytes = 256;

struct Word {
  std::vector<uint32_t> ids;
  uint64_t count = 0;
};

struct Pair {
  uint64_t count = 0;
  std::vector<uint32_t> words;  // that hold or once held the pair
};

struct Candidate {
  uint64_t count;
  uint64_t pair;  // left << 32 | right

  // The queue's top is the largest: most frequent, then lowest ids.
  bool operator<(const Candidate& o) const {
    return count != o.count ? count < o.count : pair > o.pair;
  }
};

uint64_t PairOf(uint32_t left, uint32_t right) { return (uint64_t{left} << 32) | right; }

class Merger {
 public:
  Merger(std::vector<Word> words, uint32_t max_token_bytes)
      : words_(std::move(words)), max_token_bytes_(max_token_bytes) {
    for (int byte = 0; byte < 256; ++byte) tokens_.emplace_back(1, static_cast<char>(byte));
    for (uint32_t w = 0; w < words_.size(); ++w) {
      const Word& word = words_[w];
      for (size_t i = 0; i + 1 < word.ids.size(); ++i) Count(word.ids[i], word.ids[i + 1], w);
    }
    for (const auto& [pair, info] : pairs_) queue_.push({info.count, pair});
  }

  // The next merge, applied; false when no pair is frequent enough.
  bool Next(uint64_t min_count, BytePair& merge) {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      const auto found = pairs_.find(top.pair);
      if (found == pairs_.end()) continue;
      if (found->second.count != top.count) {  // it has become rarer since
        if (found->second.count > 0) queue_.push({found->second.count, top.pair});
        continue;
      }
      if (top.count < min_count) return false;
      const auto left = static_cast<uint32_t>(top.pair >> 32);
      const auto right = static_cast<uint32_t>(top.pair);
      std::string product = tokens_[left] + tokens_[right];
      // Two ways to spell one token ("a" + "bc", "ab" + "c") would be two ids of one text.
      const bool usable = product.size() <= max_token_bytes_ && !known_.count(product);
      if (!usable) {
        pairs_.erase(found);
        continue;
      }
      merge = {tokens_[left], tokens_[right]};
      known_.emplace(product, tokens_.size());
      tokens_.push_back(std::move(product));
      const std::vector<uint32_t> words = std::move(found->second.words);
      pairs_.erase(found);
      Apply(left, right, words);
      return true;
    }
    return false;
  }

 private:
  void Count(uint32_t left, uint32_t right, uint32_t word) {
    Pair& pair = pairs_[PairOf(left, right)];
    pair.count += words_[word].count;
    if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
  }

  void Uncount(uint32_t left, uint32_t right, uint64_t count) {
    const auto found = pairs_.find(PairOf(left, right));
    if (found != pairs_.end()) found->second.count -= std::min(found->second.count, count);
  }

  void Apply(uint32_t left, uint32_t right, const std::vector<uint32_t>& words) {
    const auto product = static_cast<uint32_t>(tokens_.size() - 1);
    touched_.clear();
    for (const uint32_t w : words) ApplyTo(w, left, right, product);
    std::sort(touched_.begin(), touched_.end());
    touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
    // Pairs with the new token are the only ones that can have become more frequent.
    for (const uint64_t pair : touched_) {
      const auto found = pairs_.find(pair);
      if (found != pairs_.end() && found->second.count > 0)
        queue_.push({found->second.count, pair});
    }
  }

  // Replaces the pair in one word, left to right, and moves the counts of its neighbors.
  void ApplyTo(uint32_t w, uint32_t left, uint32_t right, uint32_t product) {
    std::vector<uint32_t>& ids = words_[w].ids;
    const uint64_t count = words_[w].count;
    size_t out = 0;
    for (size_t i = 0; i < ids.size();) {
      if (ids[i] != left || i + 1 == ids.size() || ids[i + 1] != right) {
        ids[out++] = ids[i++];
        continue;
      }
      if (out > 0) {
        Uncount(ids[out - 1], left, count);
        Count(ids[out - 1], product, w);
        touched_.push_back(PairOf(ids[out - 1], product));
      }
      if (i + 2 < ids.size()) {
        // A following pair that is merged as well takes this count back when its turn comes.
        Uncount(right, ids[i + 2], count);
        Count(product, ids[i + 2], w);
        touched_.push_back(PairOf(product, ids[i + 2]));
      }
      ids[out++] = product;
      i += 2;
    }
    ids.resize(out);
  }

  std::vector<Word> words_;
  uint32_t max_token_bytes_;
  std::vector<std::string> tokens_;  // by id: bytes, then products
  std::unordered_map<std::string, size_t> known_;
  std::unordered_map<uint64_t, Pair> pairs_;
  std::priority_queue<Candidate> queue_;
  std::vector<uint64_t> touched_;
};

}  // namespace

struct BpeTrainer::State {
  TokenizerParts parts;
  PreTokenizerScratch scratch;
  std::unordered_map<std::string, uint64_t> pieces;
};

BpeTrainer::BpeTrainer() : state_(std::make_unique<State>()) {
  auto parts = ParseTokenizerJson(V4TokenizerJson({}), "V4's format");
  CACHALOT_CHECK(parts.ok());
  state_->parts = std::move(parts).value();
}

BpeTrainer::~BpeTrainer() = default;

void BpeTrainer::Add(std::string_view text) {
  const auto count = [this](std::string_view gap) {
    state_->parts.pre_tokenizer->Run(gap, state_->scratch);
    for (const std::string_view piece : state_->scratch.pieces) {
      if (ValidUtf8Length(piece, 0) != piece.size()) continue;
      for (size_t at = 0; at < piece.size(); at += kMaxPieceBytes) {
        ++state_->pieces[std::string(piece.substr(at, kMaxPieceBytes))];
      }
    }
  };
  size_t at = 0;
  while (const auto match = state_->parts.plain_matcher.Find(text, at)) {
    count(text.substr(at, match->begin - at));
    at = match->begin + match->size;
  }
  count(text.substr(at));
}

uint64_t BpeTrainer::num_pieces() const { return state_->pieces.size(); }

Result<std::vector<BytePair>> BpeTrainer::Train(const BpeTrainerOptions& options,
                                                const BpeProgress& progress) const {
  if (options.vocab_size < MinV4Vocab()) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("the vocabulary has ", options.vocab_size, " entries, expected at least ",
                        MinV4Vocab(), " (256 bytes and V4's special tokens)")};
  }
  std::vector<Word> words;
  words.reserve(state_->pieces.size());
  for (const auto& [piece, count] : state_->pieces) {
    Word word{.count = count};
    for (const char c : piece) word.ids.push_back(static_cast<uint8_t>(c));
    words.push_back(std::move(word));
  }
  const size_t wanted = options.vocab_size - MinV4Vocab();
  Merger merger(std::move(words), options.max_token_bytes);
  std::vector<BytePair> merges;
  BytePair merge;
  while (merges.size() < wanted && merger.Next(options.min_count, merge)) {
    merges.push_back(merge);
    if (progress && !progress(merges.size(), wanted)) {
      return Error{ErrorCode::kCancelled, "stopped; nothing was written"};
    }
  }
  return merges;
}

}  // namespace cachalot::tokenizer
