// SPDX-License-Identifier: Apache-2.0
// Stop strings over a stream of bytes: holds back what may still become one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::chat {

// The occurrence that begins first wins, however the text was cut; of those that begin together,
// the shortest. Knuth-Morris-Pratt, so O(bytes * stop strings) whatever the strings are.
class StopMatcher {
 public:
  // Empty strings are ignored.
  explicit StopMatcher(const std::vector<std::string>& stops);

  // Text certain to come before any stop string. Nothing more after a match.
  std::string Push(std::string_view piece);
  // The held rest, at the end of the text.
  std::string Finish();

  bool stopped() const { return stopped_; }
  // The string that matched. Pre: stopped().
  const std::string& matched() const { return stops_[matched_].text; }

 private:
  struct Stop {
    std::string text;
    std::vector<size_t> border;  // longest proper border of each prefix, by its length
    size_t state = 0;            // bytes matched so far
  };

  void PushByte(char c);
  // Decides for the found occurrence unless one that began earlier may still complete.
  void Settle(bool at_end);

  std::vector<Stop> stops_;
  std::string held_;
  size_t match_begin_ = std::string::npos;  // in held_
  size_t matched_ = 0;
  bool stopped_ = false;
};

}  // namespace cachalot::chat
