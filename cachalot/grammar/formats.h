// SPDX-License-Identifier: Apache-2.0
// JSON Schema's `format` of strings. Internal to the module.
#pragma once

#include <string>
#include <string_view>

namespace cachalot::grammar {

// A regular expression for a format; "" for one that is not known. All its texts are of the format;
// where a format leaves room for what clients' own checks tend to refuse (quoted e-mail addresses,
// leap seconds), it has fewer.
std::string PatternOfFormat(std::string_view format);
inline constexpr std::string_view kFormats =
    "date-time, date, time, duration, email, hostname, ipv4, ipv6, uuid, uri";

}  // namespace cachalot::grammar
