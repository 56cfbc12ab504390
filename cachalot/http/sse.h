// SPDX-License-Identifier: Apache-2.0
// Frames of server-sent events (WHATWG HTML, "Server-sent events").
#pragma once

#include <string>
#include <string_view>

namespace cachalot::http {

inline constexpr std::string_view kSseContentType = "text/event-stream; charset=utf-8";
inline constexpr std::string_view kSseKeepAlive = ": keep-alive\n\n";

// "data: ..." and, if `event` is not empty, "event: ..." before it; ends with the empty line. Line
// breaks in `data` (LF, CR, CRLF) become further data lines, so the reader gets them back as LF.
// `event` must not contain line breaks.
std::string SseFrame(std::string_view event, std::string_view data);
inline std::string SseData(std::string_view data) { return SseFrame({}, data); }

}  // namespace cachalot::http
