// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace cachalot::chat {
namespace {

std::vector<size_t> Borders(std::string_view text) {
  std::vector<size_t> border(text.size() + 1, 0);
  size_t k = 0;
  for (size_t i = 1; i < text.size(); ++i) {
    while (k > 0 && text[i] != text[k]) k = border[k];
    if (text[i] == text[k]) ++k;
    border[i + 1] = k;
  }
  return border;
}

}  // namespace

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    if (!stop.empty()) stops_.push_back({.text = stop, .border = Borders(stop)});
  }
}

std::string StopMatcher::Push(std::string_view piece) {
  if (stopped_) return {};
  if (stops_.empty()) return std::string(piece);
  for (const char c : piece) {
    PushByte(c);
    Settle(/*at_end=*/false);
    if (stopped_) return std::exchange(held_, {});
  }
  // A found occurrence waits for one that began earlier: then even that beginning is held.
  size_t longest = 0;
  for (const Stop& stop : stops_) longest = std::max(longest, stop.state);
  size_t safe = held_.size() - longest;
  if (match_begin_ != std::string::npos) {
    safe = std::min(safe, match_begin_);
    match_begin_ -= safe;
  }
  std::string out = held_.substr(0, safe);
  held_.erase(0, safe);
  return out;
}

std::string StopMatcher::Finish() {
  if (!stopped_) Settle(/*at_end=*/true);
  return std::exchange(held_, {});
}

void StopMatcher::PushByte(char c) {
  held_ += c;
  for (size_t i = 0; i < stops_.size(); ++i) {
    Stop& stop = stops_[i];
    if (stop.state == stop.text.size()) stop.state = stop.border[stop.state];
    while (stop.state > 0 && stop.text[stop.state] != c) stop.state = stop.border[stop.state];
    if (stop.text[stop.state] == c) ++stop.state;
    if (stop.state < stop.text.size()) continue;
    const size_t begin = held_.size() - stop.state;
    if (match_begin_ == std::string::npos || begin < match_begin_) {
      match_begin_ = begin;
      matched_ = i;
    }
    stop.state = stop.border[stop.state];
  }
}

void StopMatcher::Settle(bool at_end) {
  if (match_begin_ == std::string::npos) return;
  for (const Stop& stop : stops_) {
    if (!at_end && held_.size() - stop.state < match_begin_) return;
  }
  stopped_ = true;
  held_.resize(match_begin_);
}

}  // namespace cachalot::chat
