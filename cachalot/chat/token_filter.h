// SPDX-License-Identifier: Apache-2.0
// Keeps the DSML token out of text that reaches the user or a tool. [chat.md 8.3, rule 15]
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace cachalot::chat {

// Removes the token from a stream of bytes. What went out never contains it, not even where the
// removal of one token puts the halves of another side by side: then the second half is removed
// too. Holds back less than one token.
class TokenFilter {
 public:
  std::string Push(std::string_view piece);
  std::string Finish();

 private:
  std::string held_;
  size_t state_ = 0;       // bytes of the token that end all text, sent and held
  size_t sent_state_ = 0;  // bytes of the token that end the sent text
};

}  // namespace cachalot::chat
