// SPDX-License-Identifier: Apache-2.0
// Turns what an Answer has ready into the bytes of its connection: head, chunks, keep-alives.
#pragma once

#include <string>
#include <string_view>

#include "cachalot/http/answer_internal.h"
#include "cachalot/http/wire_internal.h"

namespace cachalot::http {

class Framer {
 public:
  struct For {  // of the request to be answered
    bool is_head = false;
    bool http_1_0 = false;
    bool keep_alive = true;
    Headers extra = {};  // sent with the answer's own headers
  };
  void Begin(For request);

  // `work.head` comes with the first call. `must_close`: say so there, whatever was asked for.
  std::string Frame(const Answer::Work& work, bool must_close);

  // What a silent stream sends; empty: nothing.
  std::string KeepAlive() const;

  bool keep_alive() const { return framing_.keep_alive; }  // goes on after this answer
  void ForbidKeepAlive() { framing_.keep_alive = false; }

 private:
  std::string Head(const Answer::Work& work, bool must_close);
  void AppendBytes(std::string_view bytes, std::string* out) const;

  bool is_head_ = false;
  Framing framing_;
  Headers extra_;
  std::string keep_alive_;
};

}  // namespace cachalot::http
