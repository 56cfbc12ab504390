// SPDX-License-Identifier: Apache-2.0
// Conditions on strings and numbers against checks that share nothing with them: std::regex, a
// calendar, doubles.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <regex>
#include <string>

#include "cachalot/base/json.h"
#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/grammar/grammar.h"
#include "cachalot/grammar/matcher.h"

namespace cachalot::grammar {
namespace {

std::shared_ptr<Automaton> FromSchema(const Json& schema) {
  auto grammar = Grammar::FromJsonSchema(schema.dump());
  EXPECT_TRUE(grammar.ok()) << schema.dump() << " " << grammar.error().message;
  return std::make_shared<Automaton>(std::move(grammar).value(), std::make_shared<Vocabulary>());
}

bool Matches(Automaton& automaton, std::string_view text) {
  return automaton.Complete(automaton.Advance(automaton.start(), text));
}

uint64_t Random(uint64_t a, uint64_t b, uint64_t below) { return CounterRandom(a, b, 77) % below; }

// A text that a walk through the automaton writes; after `hurry` bytes it takes the first way to an
// end it finds. Fails where the walk is stuck.
std::string RandomText(Automaton& automaton, uint64_t seed, size_t hurry = 60) {
  std::string text;
  auto position = automaton.start();
  for (uint64_t step = 0; step < 4000; ++step) {
    if (automaton.Complete(position) && (step > hurry || Random(seed, step, 4) == 0)) return text;
    std::vector<std::pair<char, Automaton::Position>> ways;
    for (int byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      const auto next = automaton.Advance(position, std::string_view(&c, 1));
      if (next != Automaton::kDead) ways.push_back({c, next});
    }
    if (ways.empty()) {
      EXPECT_TRUE(automaton.Complete(position)) << "stuck after " << text;
      return text;
    }
    // Late, a quote or a character that ends something is preferred.
    size_t pick = Random(seed, step, ways.size());
    for (size_t i = 0; i < ways.size() && step > hurry; ++i) {
      if (ways[i].first == '"' || automaton.Complete(ways[i].second)) pick = i;
    }
    text += ways[pick].first;
    position = ways[pick].second;
  }
  ADD_FAILURE() << "no end: " << text;
  return text;
}

constexpr const char* kPatterns[] = {"^[a-c]+$",
                                     "a",
                                     "^a|b$",
                                     "(^a|b)c",
                                     "^(?:ab|ba){2,3}$",
                                     "^a{0,2}b?$",
                                     "[^ab]",
                                     "^$",
                                     "^",
                                     "a.c",
                                     "^\\w+-\\d{2}$",
                                     "(a*)*b",
                                     "^(a|ab)(c|bcd)$",
                                     "^[\\w.-]+$",
                                     "^a??b+?$",
                                     "a{,2}",
                                     "^\\x61\\u0062[\\]x]$",
                                     "^(?:(?:a|b)*c){0,4}$",
                                     "a$|^c",
                                     "()",
                                     "^(?:a|)+b$"};

TEST(ConditionsTest, PatternsAgreeWithStdRegex) {
  constexpr std::string_view kLetters = "abcx-_.{}, 2]";
  for (const char* pattern : kPatterns) {
    const auto automaton = FromSchema({{"type", "string"}, {"pattern", pattern}});
    // ECMAScript of the standard library knows no \u{..} and no bare brace; the rest is the same.
    const bool bare_brace = std::string_view(pattern) == "a{,2}";
    const std::regex expected(bare_brace ? "a\\{,2\\}" : pattern, std::regex::ECMAScript);
    for (uint64_t i = 0; i < 3000; ++i) {
      std::string text;
      const size_t size = i % 9;
      for (size_t j = 0; j < size; ++j) {
        // Few letters often, so that both verdicts occur.
        text += kLetters[Random(i, j, i % 3 == 0 ? kLetters.size() : 3)];
      }
      EXPECT_EQ(Matches(*automaton, Json(text).dump()), std::regex_search(text, expected))
          << pattern << " " << text;
    }
  }
}

TEST(ConditionsTest, WhatAWalkWritesMatchesThePattern) {
  for (const char* pattern : kPatterns) {
    if (std::string_view(pattern) == "a{,2}") continue;
    const auto automaton =
        FromSchema({{"type", "string"}, {"pattern", pattern}, {"maxLength", 12}});
    const std::regex expected(pattern, std::regex::ECMAScript);
    for (uint64_t seed = 0; seed < 10; ++seed) {
      const auto json = ParseJson(RandomText(*automaton, seed), "walk");
      ASSERT_TRUE(json.ok() && json->is_string()) << pattern;
      const auto text = json->get<std::string>();
      size_t length = 0;
      std::string ascii;  // std::regex looks at bytes
      for (const char c : text) {
        const bool begins = (static_cast<uint8_t>(c) & 0xC0) != 0x80;
        length += begins ? 1 : 0;
        if (begins) ascii += static_cast<uint8_t>(c) < 0x80 ? c : '~';
      }
      EXPECT_LE(length, 12u);
      EXPECT_TRUE(std::regex_search(ascii, expected)) << pattern << " " << text;
    }
  }
}

TEST(ConditionsTest, PatternsBeyondAscii) {
  struct Case {
    const char* pattern;
    std::vector<std::string> good, bad;
  };
  const Case cases[] = {
      {"^[\\u00e0-\\u00ff]+$", {"\"\u00e9\u00e0\""}, {"\"e\"", "\"\u0100\""}},
      {"^\\u{1F600}$", {"\"\U0001F600\""}, {"\"\U0001F601\""}},
      {"^\\ud83d\\ude00$", {"\"\U0001F600\""}, {"\"\U0001F601\""}},
      {"^.$",
       {"\"\u4e2d\"", "\"\U0010FFFF\"", R"("\"")", R"("\\")", R"("\t")"},
       {R"("\n")", "\"\u2028\"", "\"ab\"", "\"\xff\"", "\"\xed\xa0\x80\"", "\"\"\""}},
      {"^[^a]$", {R"("\n")", R"("\u0001")", "\"\x7f\""}, {R"("a")", "\"\n\""}},
      {"^[\\w-.]+$", {R"("a.b-c")"}, {R"("a b")"}},  // of annex B
      {"^\\s$", {R"("\n")", "\" \"", "\"\u3000\""}, {R"("x")"}},
      {"^\u4e2d+$", {"\"\u4e2d\u4e2d\""}, {"\"\""}},
  };
  for (const Case& c : cases) {
    const auto automaton = FromSchema({{"type", "string"}, {"pattern", c.pattern}});
    for (const auto& text : c.good) EXPECT_TRUE(Matches(*automaton, text)) << c.pattern << text;
    for (const auto& text : c.bad) EXPECT_FALSE(Matches(*automaton, text)) << c.pattern << text;
  }
}

TEST(ConditionsTest, BadAndIrregularExpressionsAreRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"(", "lacks a ')'"},
      {")", "too many"},
      {"[a", "lacks a ']'"},
      {"*a", "nothing to repeat"},
      {"a**", "repeats a repetition"},
      {"a{3,1}", "wrong way"},
      {"[z-a]", "backwards"},
      {"\\", "backslash"},
      {"\\q", "unknown escape"},
      {"\\x1", "hexadecimal"},
      {"(?=a)", "looking"},
      {"(?<!a)b", "looking"},
      {"(a)\\1", "back reference"},
      {"\\bword", "word boundary"},
      {"\\p{L}", "Unicode property"},
      {"a{99999}", "more than"},
      {"(?:(?:a{2000}){2000}){2000}", "too large"},
      {"(?:(?:(?:){2000}){2000}){2000}", "too large"},
      {"^b$a", "no text"},
  };
  for (const auto& [pattern, why] : cases) {
    const auto grammar =
        Grammar::FromJsonSchema(Json({{"type", "string"}, {"pattern", pattern}}).dump());
    ASSERT_FALSE(grammar.ok()) << pattern;
    EXPECT_NE(grammar.error().message.find(why), std::string::npos) << grammar.error().message;
    EXPECT_NE(grammar.error().message.find("schema.pattern"), std::string::npos);
  }
}

bool IsDate(const std::string& text) {
  int year = 0, month = 0, day = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2d", &year, &month, &day) != 3) return false;
  constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (text.size() != 10 || month < 1 || month > 12) return false;
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return day >= 1 && day <= kDays[month - 1] + (leap && month == 2 ? 1 : 0);
}

TEST(ConditionsTest, DatesAreThoseOfTheCalendar) {
  const auto automaton = FromSchema({{"type", "string"}, {"format", "date"}});
  for (const int year : {0, 4, 100, 400, 1900, 1996, 1999, 2000, 2023, 2024, 2100, 9999}) {
    for (int month = 0; month <= 13; ++month) {
      for (int day = 0; day <= 32; ++day) {
        const std::string text = fmt::format("{:04}-{:02}-{:02}", year, month, day);
        ASSERT_EQ(Matches(*automaton, "\"" + text + "\""), IsDate(text)) << text;
      }
    }
  }
}

TEST(ConditionsTest, Formats) {
  struct Case {
    const char* format;
    std::vector<const char*> good, bad;
  };
  const Case cases[] = {
      {"date-time",
       {"2024-02-29T23:59:59Z", "1985-04-12T23:20:50.52+01:30"},
       {"2023-02-29T00:00:00Z", "2024-01-01T24:00:00Z", "2024-01-01T00:00:00", "2024-01-01"}},
      {"time", {"00:00:00Z", "12:30:01.5-08:00"}, {"12:30Z", "12:60:00Z"}},
      {"duration",
       {"P1D", "P1Y2M3D", "PT5M", "PT1H2M3S", "P4W", "P1DT12H"},
       {"P", "PT", "1D", "P1S", "P1H", "P1Y3D", "P1W2D"}},
      {"email",
       {"a@b.co", "first.last+tag@mail.example.org"},
       {"a@b", "@b.co", "a b@c.de", "a..b@c.de", "a@-b.co", ".a@b.co"}},
      {"hostname", {"localhost", "a-1.example.com"}, {"-a", "a-", "a..b", "", "a_b"}},
      {"ipv4", {"0.0.0.0", "255.249.199.9"}, {"256.0.0.1", "1.2.3", "01.2.3.4", "1.2.3.4.5"}},
      {"ipv6",
       {"::", "::1", "1::", "2001:db8::ff00:42:8329", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::"},
       {":", ":::", "1::2::3", "12345::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "g::"}},
      {"uuid",
       {"123e4567-e89b-12d3-a456-426614174000"},
       {"123e4567e89b12d3a456426614174000", "123e4567-e89b-12d3-a456-42661417400g"}},
      {"uri", {"https://example.org/a%20b?q=1#top", "ftp://h"}, {"example.org", "http//x", "a b"}},
  };
  for (const Case& c : cases) {
    const auto automaton = FromSchema({{"type", "string"}, {"format", c.format}});
    for (const char* text : c.good) EXPECT_TRUE(Matches(*automaton, Json(text).dump())) << text;
    for (const char* text : c.bad) EXPECT_FALSE(Matches(*automaton, Json(text).dump())) << text;
    for (uint64_t seed = 0; seed < 20; ++seed) RandomText(*automaton, seed);  // never stuck
  }
}

// The bounds as a reader has them, in doubles.
bool InBounds(double x, const Json& schema) {
  const auto bound = [&](const char* key, const std::function<bool(double)>& holds) {
    return !schema.contains(key) || holds(schema[key].get<double>());
  };
  return bound("minimum", [&](double b) { return x >= b; }) &&
         bound("maximum", [&](double b) { return x <= b; }) &&
         bound("exclusiveMinimum", [&](double b) { return x > b; }) &&
         bound("exclusiveMaximum", [&](double b) { return x < b; });
}

constexpr const char* kBounds[] = {
    R"({"minimum":3})",
    R"({"maximum":-3})",
    R"({"minimum":-12.5,"maximum":7.25})",
    R"({"exclusiveMinimum":0})",
    R"({"exclusiveMinimum":0,"exclusiveMaximum":1})",
    R"({"minimum":0.1,"exclusiveMaximum":0.3})",
    R"({"exclusiveMinimum":-0.05,"maximum":1e3})",
    R"({"minimum":99,"maximum":1001})",
    R"({"minimum":9.99,"exclusiveMinimum":9.99,"maximum":10.01})",
    R"({"minimum":-1e-3,"maximum":1e-7})",
    R"({"minimum":-200,"maximum":-100})",
    R"({"minimum":7,"maximum":7})",
};

TEST(ConditionsTest, NumbersBetweenBounds) {
  for (const char* text : kBounds) {
    for (const char* type : {"number", "integer"}) {
      Json schema = ParseJson(text, "test").value();
      schema["type"] = type;
      const bool integer = std::string_view(type) == "integer";
      auto grammar = Grammar::FromJsonSchema(schema.dump());
      if (!grammar.ok()) {  // nothing lies between
        EXPECT_TRUE(integer) << text;
        for (int i = -2000; i <= 2000; ++i) EXPECT_FALSE(InBounds(i, schema)) << text;
        continue;
      }
      Automaton automaton(std::move(grammar).value(), std::make_shared<Vocabulary>());
      // What is written holds.
      for (uint64_t seed = 0; seed < 60; ++seed) {
        const std::string written = RandomText(automaton, seed, seed % 12);
        const auto json = ParseJson(written, "walk");
        ASSERT_TRUE(json.ok() && json->is_number()) << written;
        EXPECT_TRUE(InBounds(json->get<double>(), schema)) << schema.dump() << " " << written;
        EXPECT_TRUE(!integer || written.find('.') == std::string::npos) << written;
      }
      // And what holds may be written.
      for (int i = -2000; i <= 2000; ++i) {
        EXPECT_EQ(Matches(automaton, std::to_string(i)), InBounds(i, schema)) << text << i;
        const std::string decimal = fmt::format("{:.3f}", i / 1000.0);
        const bool fits = InBounds(std::stod(decimal), schema) && !decimal.starts_with("-0.000");
        EXPECT_EQ(Matches(automaton, decimal), !integer && fits) << text << decimal;
      }
    }
  }
}

TEST(ConditionsTest, BoundsOf64Bits) {
  const auto automaton = FromSchema(ParseJson(R"({"type":"integer","minimum":-9223372036854775808,
      "maximum":9223372036854775807})",
                                              "test")
                                        .value());
  for (const char* good : {"0", "9223372036854775807", "-9223372036854775808", "-1"}) {
    EXPECT_TRUE(Matches(*automaton, good)) << good;
  }
  for (const char* bad : {"9223372036854775808", "-9223372036854775809", "-0", "00"}) {
    EXPECT_FALSE(Matches(*automaton, bad)) << bad;
  }
}

TEST(ConditionsTest, Multiples) {
  for (const int divisor : {1, 2, 7, 10, 64, 1000}) {
    const auto automaton = FromSchema(
        {{"type", "integer"}, {"multipleOf", divisor}, {"minimum", -500}, {"maximum", 1500}});
    for (int i = -2100; i <= 2100; ++i) {
      EXPECT_EQ(Matches(*automaton, std::to_string(i)), i % divisor == 0 && i >= -500 && i <= 1500)
          << divisor << " " << i;
    }
  }
  for (const int hundredths : {1, 5, 25, 150}) {
    const auto automaton = FromSchema({{"type", "number"},
                                       {"multipleOf", hundredths / 100.0},
                                       {"exclusiveMinimum", -1},
                                       {"maximum", 4.5}});
    for (int i = -300; i <= 600; ++i) {
      const std::string text =
          fmt::format("{}{}.{:02}", i < 0 ? "-" : "", std::abs(i) / 100, std::abs(i) % 100);
      const bool fits = i % hundredths == 0 && i > -100 && i <= 450;
      // No more decimals than the divisor has.
      const bool decimals = hundredths % 10 != 0 || text.back() != '0';
      if (!decimals) continue;
      EXPECT_EQ(Matches(*automaton, text), fits) << hundredths << " " << text;
    }
    EXPECT_TRUE(Matches(*automaton, "0"));
    EXPECT_FALSE(Matches(*automaton, "0.001"));
  }
}

}  // namespace
}  // namespace cachalot::grammar
