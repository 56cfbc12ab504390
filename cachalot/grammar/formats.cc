// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/formats.h"

#include "cachalot/base/strings.h"

namespace cachalot::grammar {
namespace {

// [RFC 3339, section 5.6] Each month has its days; February 29 wants a year divisible by 4, and by
// 400 if by 100.
std::string Date() {
  constexpr std::string_view kBy4 = "(?:0[48]|[2468][048]|[13579][26])";
  const std::string leap_year = StrCat("(?:\\d\\d", kBy4, "|(?:00|", kBy4, ")00)");
  return StrCat("(?:\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|",
                "(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))|", leap_year,
                "-02-29)");
}

constexpr std::string_view kTime =
    "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?"
    "(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)";

// [RFC 3339, appendix A]
std::string Duration() {
  constexpr std::string_view kN = "\\d{1,9}";
  const std::string seconds = StrCat(kN, "S");
  const std::string minutes = StrCat(kN, "M(?:", seconds, ")?");
  const std::string time = StrCat("T(?:", kN, "H(?:", minutes, ")?|", minutes, "|", seconds, ")");
  const std::string days = StrCat(kN, "D");
  const std::string months = StrCat(kN, "M(?:", days, ")?");
  const std::string date = StrCat("(?:", kN, "Y(?:", months, ")?|", months, "|", days, ")");
  return StrCat("P(?:", kN, "W|", time, "|", date, "(?:", time, ")?)");
}

// [RFC 1123, section 2.1] At most 7 labels of 30, so that the whole stays within 253.
constexpr std::string_view kLabel = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,28}[A-Za-z0-9])?";

std::string Hostname() { return StrCat(kLabel, "(?:\\.", kLabel, "){0,6}"); }

std::string Email() {
  constexpr std::string_view kAtom = "[A-Za-z0-9_+-]{1,30}";
  return StrCat(kAtom, "(?:\\.", kAtom, ")?@(?:", kLabel, "\\.){1,4}[A-Za-z]{2,12}");
}

std::string Ipv4() {
  constexpr std::string_view kOctet = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
  return StrCat(kOctet, "(?:\\.", kOctet, "){3}");
}

// [RFC 4291, section 2.2] All eight groups, or fewer around one "::".
std::string Ipv6() {
  constexpr std::string_view kGroup = "[0-9A-Fa-f]{1,4}";
  std::string all =
      StrCat("(?:", kGroup, ":){7}", kGroup, "|::|:(?::", kGroup, "){1,7}|(?:", kGroup, ":){1,7}:");
  for (int before = 1; before <= 6; ++before) {
    all += StrCat("|(?:", kGroup, ":){", before, "}(?::", kGroup, "){1,", 7 - before, "}");
  }
  return all;
}

// [RFC 3986] With an authority.
std::string Uri() {
  constexpr std::string_view kChar = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
  return StrCat("[a-z][a-z0-9+.-]{0,20}://", Hostname(), "(?::\\d{1,4})?(?:/", kChar,
                "*)*(?:\\?(?:", kChar, "|[/?])*)?(?:#(?:", kChar, "|[/?])*)?");
}

std::string Text(std::string_view format) {
  if (format == "date-time") return StrCat(Date(), "T", kTime);
  if (format == "date") return Date();
  if (format == "time") return std::string(kTime);
  if (format == "duration") return Duration();
  if (format == "email") return Email();
  if (format == "hostname") return Hostname();
  if (format == "ipv4") return Ipv4();
  if (format == "ipv6") return Ipv6();
  if (format == "uuid") return "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
  if (format == "uri") return Uri();
  return {};
}

}  // namespace

std::string PatternOfFormat(std::string_view format) {
  const std::string text = Text(format);
  return text.empty() ? text : StrCat("^(?:", text, ")$");
}

}  // namespace cachalot::grammar
