// SPDX-License-Identifier: Apache-2.0
// Stop strings over a stream of text pieces: holds back what may still become a stop string.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cachalot::cli {

class StopMatcher {
 public:
  // Empty strings are ignored.
  explicit StopMatcher(std::vector<std::string> stops);

  // Text that is safe to show now. After a match, nothing more; the stop string is not shown. The
  // match that begins first wins, however the text was cut into pieces.
  std::string Push(std::string_view piece);
  // The held rest, at the end of the stream.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace cachalot::cli
