// SPDX-License-Identifier: Apache-2.0
// The strings of the protocol [chat.md 2.3, 4, 6]. Sources stay ASCII: U+FF5C (fullwidth vertical
// line) and U+2581 (lower one eighth block) are written as escapes.
#pragma once

#include <string_view>

namespace cachalot::chat {

inline constexpr std::string_view kBos = "<\uFF5Cbegin\u2581of\u2581sentence\uFF5C>";
inline constexpr std::string_view kEos = "<\uFF5Cend\u2581of\u2581sentence\uFF5C>";
inline constexpr std::string_view kSystemMarker = "<\uFF5CSystem\uFF5C>";  // V4.1 only
inline constexpr std::string_view kUserMarker = "<\uFF5CUser\uFF5C>";
inline constexpr std::string_view kAssistantMarker = "<\uFF5CAssistant\uFF5C>";
inline constexpr std::string_view kLatestReminderMarker = "<\uFF5Clatest_reminder\uFF5C>";
inline constexpr std::string_view kImage = "<\uFF5Cdeepseek_image\uFF5C>";  // V4.1 only
inline constexpr std::string_view kThinkOpen = "<think>";
inline constexpr std::string_view kThinkClose = "</think>";
// One token, with the angle brackets outside of it. [chat.md 2.6]
inline constexpr std::string_view kDsml = "\uFF5CDSML\uFF5C";
static_assert(kDsml.size() == 10, "the execution character set must be UTF-8");

}  // namespace cachalot::chat
