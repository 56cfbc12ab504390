// SPDX-License-Identifier: Apache-2.0
// Learns the merges of a byte-level BPE vocabulary from text. [chat.md 2; Sennrich et al. 2016]
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/tokenizer/v4_format.h"

namespace cachalot::tokenizer {

// Called with (merges learned, merges wanted); returns false to stop.
using BpeProgress = std::function<bool(uint64_t, uint64_t)>;

struct BpeTrainerOptions {
  uint32_t vocab_size = 0;         // >= MinV4Vocab(): bytes and special tokens included
  uint64_t min_count = 2;          // a pair seen less often is not merged
  uint32_t max_token_bytes = 128;  // V4's longest token is 128 spaces
};

// Text is cut as V4's pre-tokenizer cuts it, special tokens and bytes that are no UTF-8 left out;
// only the distinct pieces and their counts are kept. Not thread-safe.
class BpeTrainer {
 public:
  BpeTrainer();
  ~BpeTrainer();

  void Add(std::string_view text);
  uint64_t num_pieces() const;  // distinct ones

  // The most frequent pair is merged first; of equally frequent ones the pair with the lower ids,
  // left before right. So the result depends on the text only, not on the order it came in. Fewer
  // merges than wanted if pairs run out. kInvalidArgument for a vocabulary that is too small;
  // kCancelled. Cost: each merge visits the pieces that hold its pair; the pairs wait in a priority
  // queue whose counts are brought up to date when they come first.
  Result<std::vector<BytePair>> Train(const BpeTrainerOptions& options,
                                      const BpeProgress& progress) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cachalot::tokenizer
