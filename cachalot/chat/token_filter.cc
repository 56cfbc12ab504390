// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/token_filter.h"

#include <algorithm>
#include <utility>

#include "cachalot/chat/markers.h"

namespace cachalot::chat {
namespace {

constexpr size_t kBarBytes = 3;  // U+FF5C

// How much of the token ends the text when its first `matched` < size bytes did and `c` follows.
// The only borders of the token's prefixes lie in its closing bar, which repeats the opening one.
size_t NextState(size_t matched, char c) {
  while (kDsml[matched] != c) {
    if (matched == 0) return 0;
    const size_t before_bar = kDsml.size() - kBarBytes;
    matched = matched > before_bar ? matched - before_bar : 0;
  }
  return matched + 1;
}

}  // namespace

std::string TokenFilter::Push(std::string_view piece) {
  const bool idle = state_ == 0 && sent_state_ == 0;
  if (idle && piece.find(kDsml[0]) == std::string_view::npos) return std::string(piece);
  std::string out;
  for (const char c : piece) {
    held_ += c;
    state_ = NextState(state_, c);
    if (state_ == kDsml.size()) {
      held_.clear();
      state_ = sent_state_;
      continue;
    }
    const size_t send = held_.size() - std::min(state_, held_.size());
    for (size_t i = 0; i < send; ++i) sent_state_ = NextState(sent_state_, held_[i]);
    out.append(held_, 0, send);
    held_.erase(0, send);
  }
  return out;
}

std::string TokenFilter::Finish() {
  state_ = sent_state_ = 0;
  return std::exchange(held_, {});
}

}  // namespace cachalot::chat
