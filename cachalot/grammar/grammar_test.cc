// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/grammar.h"

#include <gtest/gtest.h>

#include <functional>

#include "cachalot/base/json.h"
#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/grammar/matcher.h"

namespace cachalot::grammar {
namespace {

constexpr uint32_t kEnd = 1;

std::shared_ptr<const tokenizer::Tokenizer> Mini() {
  static const auto tokenizer =
      tokenizer::Tokenizer::Load(CACHALOT_SOURCE_DIR "/models/mini").value();
  return tokenizer;
}

std::shared_ptr<const Vocabulary> Words() {
  static const auto words = Vocabulary::Create(*Mini(), 0, {});
  return words;
}

std::shared_ptr<Automaton> FromSchema(std::string_view schema) {
  auto grammar = Grammar::FromJsonSchema(schema);
  EXPECT_TRUE(grammar.ok()) << grammar.error().message;
  return std::make_shared<Automaton>(std::move(grammar).value(), Words());
}

bool Matches(Automaton& automaton, std::string_view text) {
  return automaton.Complete(automaton.Advance(automaton.start(), text));
}

struct Case {
  const char* schema;
  std::vector<std::string> good, bad;
};

TEST(GrammarTest, AcceptsWhatTheSchemaSays) {
  const Case cases[] = {
      {R"({"type":"integer","minimum":3,"maximum":120})",
       {"3", "9", "10", "99", "100", "119", "120"},
       {"2", "0", "121", "200", "03", "-3", "1.0", ""}},
      {R"({"type":"integer","exclusiveMinimum":-12,"maximum":5})",
       {"-11", "-1", "0", "5"},
       {"-12", "6", "-0", "--1"}},
      {R"({"type":"number"})", {"0", "-1.5", "1e9", "2.5E-3"}, {"01", ".5", "1.", "+1", "1e"}},
      {R"({"type":"number","minimum":0})", {"0", "1.5"}, {"-1"}},
      {R"({"type":"string","minLength":2,"maxLength":3})",
       {R"("ab")", R"("abc")", "\"\u00e9\u4e2d\"", R"("\n\u00e9")"},
       {R"("a")", R"("abcd")", "\"a\nb\"", "\"a\xff\"", R"("a\ud800b")", "\"\xc3\""}},
      {R"({"enum":["a","b",3,null,{"x":[1]}]})",
       {R"("a")", "3", "null", R"({"x":[1]})"},
       {R"("c")", "4"}},
      {R"({"type":["integer","null"],"enum":["a",1,2.5,null],"x-order":3,"title":"t"})",
       {"1", "null"},
       {R"("a")", "2.5"}},
      {R"({"type":["string","null"]})", {"null", R"("x")"}, {"1"}},
      {R"({"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":3})",
       {"[true]", "[true, false]", "[\n  true,\n  false,\n  true\n]"},
       {"[]", "[true,true,true,true]", "[1]", "[true,]", "[  true]"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"},
           "c":{"type":"null"}},"required":["b"],"additionalProperties":false})",
       {R"({"b":"x"})", R"({"a":1,"b":""})", R"({"b":"","c":null})", R"({ "a": 1, "b": "y" })"},
       {"{}", R"({"a":1})", R"({"b":"x","a":1})", R"({"b":"x",})", R"({"b":"x","d":1})"}},
      {R"({"type":"object","additionalProperties":{"type":"integer"}})",
       {"{}", R"({"k":1,"l":2})"},
       {R"({"k":"1"})"}},
      {R"({"anyOf":[{"type":"integer"},{"const":"none"}]})", {"5", R"("none")"}, {R"("some")"}},
      {R"({"$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},
           "next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v","next"]}},
           "$ref":"#/$defs/n"})",
       {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":null}})"},
       {R"({"v":1})", R"({"v":1,"next":{"v":2}})"}},
      {R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"null"}],"items":false})",
       {"[1,null]", "[ 2, null ]"},
       {"[]", "[1]", "[1,null,3]", "[null,1]"}},
      {R"({"type":"array","prefixItems":[{"type":"integer"}],"items":{"type":"boolean"},
           "minItems":2,"maxItems":3})",
       {"[1,true]", "[1,true,false]"},
       {"[1]", "[1,true,true,true]", "[1,2]"}},
      {R"({"type":"object","propertyNames":{"pattern":"^x-"},
           "additionalProperties":{"type":"integer"}})",
       {"{}", R"({"x-a":1,"x-":2})"},
       {R"({"a":1})", R"({"x-a":"1"})"}},
      {R"({"type":"object","propertyNames":{"enum":["a","b"]}})", {R"({"b":[]})"}, {R"({"c":1})"}},
      {R"({"properties":{"a":{"anyOf":[{"type":"null"},{"type":"integer"}]},
           "x/y":{"$ref":"#/properties/a/anyOf/1"},"z":{"$ref":"#/properties/x~1y"}}})",
       {R"({"a":null,"x/y":3,"z":4})"},
       {R"({"z":null})"}},
      {"true", {"1", R"({"a":[{}]})", R"([null, "x"])"}, {"", "tru", "[1 2]"}},
  };
  for (const Case& c : cases) {
    const auto automaton = FromSchema(c.schema);
    for (const std::string& text : c.good)
      EXPECT_TRUE(Matches(*automaton, text)) << c.schema << text;
    for (const std::string& text : c.bad)
      EXPECT_FALSE(Matches(*automaton, text)) << c.schema << text;
  }
}

TEST(GrammarTest, RefusesWhatItCannotEnforce) {
  const std::pair<const char*, const char*> cases[] = {
      {"[", "schema"},
      {"3", "schema"},
      {R"({"type":"thing"})", "schema.type"},
      {R"({"type":"string","pattern":"a(?!b)c"})", "schema.pattern"},
      {R"({"type":"string","pattern":"(a"})", "schema.pattern"},
      {R"({"type":"string","pattern":"^a$","minLength":2})", "schema.minLength"},
      {R"({"type":"string","format":"colour"})", "schema.format"},
      {R"({"type":"object","properties":{"a":{"type":"number","minimum":5,"maximum":3}}})",
       "schema.properties.a"},
      {R"({"type":"integer","exclusiveMinimum":3,"exclusiveMaximum":4})", "no integer"},
      {R"({"type":"integer","minimum":"3"})", "schema.minimum"},
      {R"({"type":"integer","multipleOf":0})", "schema.multipleOf"},
      {R"({"type":"number","multipleOf":0.1234567})", "schema.multipleOf"},
      {R"({"type":"array","prefixItems":[{}],"items":false,"minItems":2})", "minItems"},
      {R"({"type":"object","propertyNames":{"type":"integer"}})", "schema.propertyNames.type"},
      {R"({"type":"array","minItems":3,"maxItems":2})", "minItems"},
      {R"({"type":"object","properties":{"a":{}},"required":["b"]})", "schema.required"},
      {R"({"$ref":"#/nowhere"})", "schema.$ref"},
      {R"({"not":{}})", "schema.not"},
      {R"({"type":"integer","minimum":5,"maximum":4})", "no integer"},
      {R"({"type":"string","maxLength":99999999})", "maxLength"},
      {R"({"type":"object","minProperties":1})", "schema.minProperties"},
      {R"({"type":"array","items":{},"uniqueItems":true})", "schema.uniqueItems"},
      {R"({"type":"object","required":["a"]})", "schema.required"},
      {R"({"enum":[1],"not":{"const":1}})", "schema.not"},
      {R"({"enum":[1],"minimum":2})", "schema.minimum"},
      {R"({"enum":["a"],"type":"integer"})", "schema.enum"},
      {R"({"const":"a","type":["null","integer"]})", "schema.const"},
      {R"({"type":"object","anyOf":[{"type":"object"}]})", "schema.type"},
      {R"({"anyOf":[{"type":"null"}],"oneOf":[{"type":"null"}]})", "not supported beside"},
      {R"({"minLength":2})", "schema.minLength"},
  };
  for (const auto& [schema, place] : cases) {
    const auto grammar = Grammar::FromJsonSchema(schema);
    ASSERT_FALSE(grammar.ok()) << schema;
    EXPECT_NE(grammar.error().message.find(place), std::string::npos) << grammar.error().message;
  }
  std::string deep;
  for (int i = 0; i < 200; ++i) deep += R"({"type":"array","items":)";
  deep += "true" + std::string(200, '}');
  EXPECT_FALSE(Grammar::FromJsonSchema(deep).ok());
}

TEST(GrammarTest, ASchemaThatNeverEndsHasNoTextAndNoCrash) {
  const auto automaton = FromSchema(R"({"$ref":"#"})");
  EXPECT_FALSE(Matches(*automaton, "1"));
  const auto nested = FromSchema(R"({"type":"array","items":{"$ref":"#"},"minItems":1})");
  EXPECT_FALSE(Matches(*nested, std::string(1000, '[')));
}

std::vector<uint64_t> MaskOf(Automaton& automaton, Automaton::Position position) {
  std::vector<uint64_t> mask((Words()->size() + 63) / 64, ~uint64_t{0});
  automaton.ApplyMask(position, mask);
  return mask;
}

bool Has(const std::vector<uint64_t>& mask, uint32_t id) {
  return (mask[id / 64] >> (id % 64)) & 1;
}

constexpr char kPerson[] = R"({"type":"object","properties":{
    "name":{"type":"string","minLength":1,"maxLength":8},
    "age":{"type":"integer","minimum":0,"maximum":150},
    "tags":{"type":"array","items":{"enum":["red","green","\u00e9"]},"maxItems":3},
    "note":{"anyOf":[{"type":"null"},{"type":"object","properties":{"x":{"type":"number"}}}]}},
    "required":["name","age","tags"]})";

// A walk that takes any allowed token gives a mask at each step; each equals what advancing by
// every single token says, and where it ends the text parses.
TEST(GrammarTest, MasksEqualBruteForceAlongRandomWalks) {
  const auto automaton = FromSchema(kPerson);
  for (uint64_t walk = 0; walk < 6; ++walk) {
    auto position = automaton->start();
    std::string text;
    for (uint64_t step = 0; step < 200 && !automaton->Complete(position); ++step) {
      const auto mask = MaskOf(*automaton, position);
      std::vector<uint32_t> allowed;
      for (uint32_t id = 0; id < Words()->size(); ++id) {
        const std::string& bytes = Words()->bytes(id);
        const bool want = !bytes.empty() && automaton->Advance(position, bytes) != Automaton::kDead;
        ASSERT_EQ(Has(mask, id), want) << text << "|" << bytes;
        if (want) allowed.push_back(id);
      }
      ASSERT_FALSE(allowed.empty()) << text;
      const uint32_t id = allowed[CounterRandom(walk, step, 7) % allowed.size()];
      text += Words()->bytes(id);
      position = automaton->Advance(position, Words()->bytes(id));
    }
    ASSERT_TRUE(automaton->Complete(position)) << text;
    const auto json = ParseJson(text, "walk");
    ASSERT_TRUE(json.ok()) << text;
    EXPECT_LE((*json)["age"].get<int>(), 150);
    EXPECT_LE((*json)["tags"].size(), 3u);
  }
}

TEST(GrammarTest, AMaskIsComputedOncePerPosition) {
  const auto automaton = FromSchema(kPerson);
  MaskOf(*automaton, automaton->start());
  MaskOf(*automaton, automaton->start());
  EXPECT_EQ(automaton->num_masks(), 1u);
  // Inside a free string every character leads back to the same position.
  const auto text =
      std::make_shared<Automaton>(Grammar::FromJsonSchema(R"({"type":"string"})").value(), Words());
  const auto inside = text->Advance(text->start(), "\"abc");
  EXPECT_EQ(inside, text->Advance(inside, "defg"));
}

TEST(GrammarTest, TheEndIsAllowedWhereTheTextIsWholeAndForcedWhereNothingElseIs) {
  Matcher matcher(FromSchema(R"({"type":"integer","maximum":20,"minimum":1})"), {kEnd});
  std::vector<uint64_t> mask((Words()->size() + 63) / 64, ~uint64_t{0});
  matcher.ApplyMask(mask);
  EXPECT_FALSE(Has(mask, kEnd));
  for (const char digit : std::string("20")) {
    uint32_t id = 0;
    while (Words()->bytes(id) != std::string(1, digit)) ++id;
    ASSERT_TRUE(matcher.Accept(id));
  }
  std::ranges::fill(mask, ~uint64_t{0});
  matcher.ApplyMask(mask);
  EXPECT_TRUE(matcher.complete());
  for (uint32_t id = 0; id < Words()->size(); ++id) EXPECT_EQ(Has(mask, id), id == kEnd) << id;
  EXPECT_FALSE(matcher.Accept(kEnd));
}

TEST(GrammarTest, ToolCallsNameDeclaredToolsAndParameters) {
  const ToolGrammar tools{
      .tools = {{"weather", R"({"type":"object","properties":{"city":{"type":"string"},
                   "days":{"type":"integer","minimum":1,"maximum":7},
                   "unit":{"type":"string","enum":["C","F"]}},"required":["city","days"]})"},
                {"now", ""}},
      .dsml = "|D|",
      .block_tag = "calls",
      .invoke_tag = "invoke",
      .parameter_tag = "parameter"};
  const auto grammar = Grammar::FromTools(tools);
  ASSERT_TRUE(grammar.ok()) << grammar.error().message;
  Automaton automaton(*grammar, Words());
  const std::string now = "<|D|invoke name=\"now\">\n</|D|invoke>\n";
  const auto weather = [](const std::string& city, const std::string& days) {
    return StrCat("<|D|invoke name=\"weather\">\n<|D|parameter name=\"city\" string=\"true\">",
                  city, "</|D|parameter>\n<|D|parameter name=\"days\" string=\"false\">", days,
                  "</|D|parameter>\n</|D|invoke>\n");
  };
  const std::string end = "</|D|calls>";
  EXPECT_TRUE(Matches(automaton, now + end));
  EXPECT_TRUE(Matches(automaton, now + weather("Paris </b> <|D", "3") + end));
  EXPECT_TRUE(Matches(automaton, weather("", "7") + end));
  EXPECT_FALSE(Matches(automaton, weather("x", "8") + end));
  EXPECT_FALSE(Matches(automaton, weather("x</|D|parameter>y", "3") + end));
  EXPECT_FALSE(Matches(automaton, end));
  EXPECT_FALSE(Matches(automaton, "<|D|invoke name=\"other\">\n</|D|invoke>\n" + end));
  EXPECT_FALSE(Matches(automaton, now + end + "more"));
  EXPECT_FALSE(Grammar::FromTools({.tools = {{"a\"b", ""}}, .dsml = "|D|"}).ok());
}

TEST(GrammarTest, StringsOfToolCallsKeepTheirConditions) {
  const auto grammar = Grammar::FromTools(
      {.tools = {{"f", R"({"properties":{"a":{"type":"string","minLength":2,"maxLength":9}},
                    "required":["a"]})"}},
       .dsml = "|D|",
       .block_tag = "calls",
       .invoke_tag = "invoke",
       .parameter_tag = "p"});
  ASSERT_TRUE(grammar.ok()) << grammar.error().message;
  Automaton automaton(*grammar, Words());
  const auto call = [](const std::string& a) {
    return StrCat("<|D|invoke name=\"f\">\n<|D|p name=\"a\" string=\"true\">", a,
                  "</|D|p>\n</|D|invoke>\n</|D|calls>");
  };
  // As it is, in UTF-8: nothing is escaped here.
  for (const char* good : {"ab", "\"\n\"", "\u4e2d\u4e2d", "</|D|p", "<</|D|px"}) {
    EXPECT_TRUE(Matches(automaton, call(good))) << good;
  }
  for (const char* bad : {"", "a", "0123456789", "a</|D|p>b"}) {
    EXPECT_FALSE(Matches(automaton, call(bad))) << bad;
  }
}

TEST(GrammarTest, RegularExpressionsAndChoicesHoldTheWholeAnswer) {
  auto regex = Grammar::FromRegex("a+|b");
  ASSERT_TRUE(regex.ok()) << regex.error().message;
  Automaton either(*regex, Words());
  EXPECT_TRUE(Matches(either, "aa"));
  EXPECT_TRUE(Matches(either, "b"));
  EXPECT_FALSE(Matches(either, "ab"));
  EXPECT_FALSE(Grammar::FromRegex("a(?=b)").ok());
  Automaton choice(Grammar::FromChoice({"yes", "no", "none"}), Words());
  EXPECT_TRUE(Matches(choice, "no"));
  EXPECT_TRUE(Matches(choice, "none"));
  EXPECT_FALSE(Matches(choice, "non"));
}

TEST(GrammarTest, Gbnf) {
  const auto grammar = Grammar::FromGbnf(R"(# a list of pairs
root  ::= "{" ws ( pair ("," ws pair)* )? "}"
pair  ::= name ":" ws (number | root
                       | "\"" [^"\x00-\x1f]{0,3} "\"")   # over two lines
name  ::= [a-z_] [a-zA-Z0-9_]*
number ::= "-"? ("0" | [1-9] [0-9]{0,2}) ("." [0-9]+)?
ws ::= [ \t\n]?
)");
  ASSERT_TRUE(grammar.ok()) << grammar.error().message;
  Automaton automaton(*grammar, Words());
  for (const char* good : {"{}", "{a:1}", "{ a: -12.5, b_2:{c:0}}", "{a:\"x\u00e9y\"}"}) {
    EXPECT_TRUE(Matches(automaton, good)) << good;
  }
  for (const char* bad : {"", "{a}", "{a:01}", "{2:1}", "{a:\"xxxx\"}", "{a:1,}", "{a:1"}) {
    EXPECT_FALSE(Matches(automaton, bad)) << bad;
  }
  const std::pair<const char*, const char*> cases[] = {
      {"", "no rule 'root'"},
      {"root ::= a", "'a', which no line defines"},
      {"root ::= \"a", "ends inside"},
      {"root ::= \"a\"\nroot ::= \"b\"", "again (line 2)"},
      {"root ::= (\"a\"", "lacks a ')'"},
      {"root ::= [z-a]", "backwards"},
      {"root ::= \"a\"{3,2}", "bad repetition"},
      {"root ::= \"a\"{99999}", "count"},
      {"root ::= \"\\q\"", "unknown escape"},
      {"root ::= root \"a\" | \"b\"", "calls itself"},
      {"root ::= x root \"a\"\nx ::= \"b\"?", "calls itself"},
      {"= x", "::="},
  };
  for (const auto& [text, why] : cases) {
    const auto refused = Grammar::FromGbnf(text);
    ASSERT_FALSE(refused.ok()) << text;
    EXPECT_NE(refused.error().message.find(why), std::string::npos) << refused.error().message;
  }
}

TEST(GrammarTest, AmbiguityCostsNoMoreThanItsBound) {
  // Alternatives that call themselves, or ever deeper doubles: as many stacks as texts of length n.
  std::string doubles;
  for (int i = 0; i < 20; ++i) {
    doubles += StrCat(R"(,"d)", i, R"(":{"anyOf":[{"$ref":"#/$defs/d)", i + 1,
                      R"("},{"type":"array","items":{"$ref":"#/$defs/d)", i + 1, R"("}}]})");
  }
  const std::string schemas[] = {
      R"({"anyOf":[{"$ref":"#"},{"$ref":"#"},{"type":"null"}]})",
      StrCat(R"({"$ref":"#/$defs/d0","$defs":{"d20":{"type":"null"})", doubles, "}}"),
  };
  for (const std::string& schema : schemas) {
    auto grammar = Grammar::FromJsonSchema(schema);
    ASSERT_TRUE(grammar.ok()) << grammar.error().message;
    Automaton automaton(std::move(grammar).value(), Words());
    automaton.Advance(automaton.start(), std::string(200, '['));
  }
  // Each name twice in a row: every call has a place of its own to come back to.
  std::string gbnf = "root ::= r0\n";
  for (int i = 0; i < 40; ++i) {
    gbnf += StrCat("r", i, " ::= r", i + 1, " \"a\" | r", i + 1, " \"b\"\n");
  }
  gbnf += "r40 ::= \"x\"\n";
  auto grammar = Grammar::FromGbnf(gbnf);
  ASSERT_TRUE(grammar.ok()) << grammar.error().message;
  EXPECT_EQ(Automaton(std::move(grammar).value(), Words()).start(), Automaton::kDead);
}

}  // namespace
}  // namespace cachalot::grammar
