// SPDX-License-Identifier: Apache-2.0
#include "cachalot/http/sse.h"

namespace cachalot::http {

std::string SseFrame(std::string_view event, std::string_view data) {
  std::string out;
  out.reserve(event.size() + data.size() + 24);  // 24: field names and line ends of one data line
  if (!event.empty()) out.append("event: ").append(event).append("\n");
  for (;;) {
    const size_t end = data.find_first_of("\r\n");
    out.append("data: ").append(data.substr(0, end)).append("\n");
    if (end == std::string_view::npos) break;
    const bool is_crlf = data[end] == '\r' && end + 1 < data.size() && data[end + 1] == '\n';
    data.remove_prefix(end + (is_crlf ? 2 : 1));
  }
  return out += '\n';
}

}  // namespace cachalot::http
