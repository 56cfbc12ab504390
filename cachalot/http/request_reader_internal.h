// SPDX-License-Identifier: Apache-2.0
// Beast's request parser, fed with bytes as they come and freed between requests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "cachalot/http/exchange.h"

namespace cachalot::http {

class RequestReader {
 public:
  enum class State : uint8_t { kHeader, kBody, kDone, kBad };

  RequestReader();
  ~RequestReader();

  void Begin(size_t max_header_bytes, size_t max_body_bytes);

  // Takes from the front of `in` what belongs to this request; what is left belongs to it too (a
  // line not yet whole) or, with kDone, to the next.
  State Feed(std::string* in);

  // After kBad.
  int error_status() const { return error_status_; }
  std::string_view error_message() const { return error_message_; }

  // From kBody on.
  bool expects_continue() const;
  bool is_http_1_0() const;
  bool keep_alive() const;
  Request Head() const;  // without body

  // After kDone. Frees the parser. `remote` is left to the caller.
  Request Finish();

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
  int error_status_ = 0;
  std::string_view error_message_;
};

std::string RemoteName(std::string_view address, uint16_t port);

}  // namespace cachalot::http
