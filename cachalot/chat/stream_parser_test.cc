// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/stream_parser.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>

#include "cachalot/base/strings.h"
#include "cachalot/chat/golden_cases.h"
#include "cachalot/chat/markers.h"
#include "cachalot/chat/messages.h"
#include "cachalot/chat/parse_strict.h"

namespace cachalot::chat {
namespace {

// '|' stands for the fullwidth bar in the completions below, EOS for the end marker.
std::string Dsml(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i).starts_with("|DSML|")) {
      out += kDsml;
      i += 5;
    } else if (text.substr(i).starts_with("EOS")) {
      out += kEos;
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// A parser's result in one line: reasoning [content] name(arguments) ... cause; a call that was cut
// off ends in "...".
class Trace {
 public:
  explicit Trace(ParserOptions options)
      : builder_(options.format),
        parser_(std::move(options), [this](const Event& event) { builder_.Add(event); }) {}

  void Feed(std::string_view bytes) { parser_.Feed(bytes); }
  std::string Finish() {
    parser_.Finish();
    const ParsedMessage& message = builder_.message();
    std::string out = StrCat(message.reasoning_content, "[", message.content, "]");
    for (const ParsedCall& call : message.tool_calls) {
      out += StrCat(" ", call.name, "(", call.arguments, call.complete ? ")" : "...");
    }
    if (builder_.cause() == EndCause::kEos) out += " eos";
    if (builder_.cause() == EndCause::kStopString) {
      out += StrCat(" stop ", parser_.matched_stop().value_or("?"));
    }
    return out;
  }

 private:
  MessageBuilder builder_;
  StreamParser parser_;
};

std::string Whole(const std::string& text, const ParserOptions& options) {
  Trace trace(options);
  trace.Feed(text);
  return trace.Finish();
}

// The result, after checking that every single cut and byte-by-byte feeding give the same.
std::string Parse(std::string_view pattern, const ParserOptions& options = {}) {
  const std::string text = Dsml(pattern);
  const std::string whole = Whole(text, options);
  Trace bytes(options);
  for (const char& c : text) bytes.Feed({&c, 1});
  EXPECT_EQ(bytes.Finish(), whole) << "byte by byte: " << pattern;
  for (size_t cut = 1; cut < text.size(); ++cut) {
    Trace trace(options);
    trace.Feed(std::string_view(text).substr(0, cut));
    trace.Feed(std::string_view(text).substr(cut));
    EXPECT_EQ(trace.Finish(), whole) << "cut at " << cut << ": " << pattern;
  }
  return whole;
}

ParserOptions Thinking() { return {.thinking = true}; }

// Tools get_weather(city: string, days: integer; city required) and wrap(arguments: object).
ParserOptions WithTools(bool thinking = false) {
  constexpr std::string_view kTools = R"([
    {"type":"function","function":{"name":"get_weather","parameters":{"type":"object",
      "properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}}},
    {"type":"function","function":{"name":"wrap","parameters":{"type":"object",
      "properties":{"arguments":{"type":"object"}}}}}])";
  const Result<JsonValue> json = ParseJsonValue(kTools, "tools");
  const Result<std::vector<JsonValue>> functions = ToolFunctionsFromJson(*json, "tools");
  return {.thinking = thinking, .tools = ToolSchemasOf(*functions)};
}

constexpr std::string_view kCall =
    "<|DSML|tool_calls>\n<|DSML|invoke name=\"f\">\n"
    "<|DSML|parameter name=\"a\" string=\"true\">x\ny \"q\"</|DSML|parameter>\n"
    "<|DSML|parameter name=\"b\" string=\"false\">[1, 2]</|DSML|parameter>\n"
    "</|DSML|invoke>\n</|DSML|tool_calls>EOS";
constexpr std::string_view kCallTrace = " f({\"a\": \"x\\ny \\\"q\\\"\", \"b\": [1, 2]}) eos";

// One call of f with `body` between its tags.
std::string CallWith(std::string_view body) {
  return StrCat("<|DSML|tool_calls>\n<|DSML|invoke name=\"f\">\n", body,
                "</|DSML|invoke>\n</|DSML|tool_calls>");
}

std::string Parameter(std::string_view value, std::string_view key = "a",
                      std::string_view flag = "true") {
  return StrCat("<|DSML|parameter name=\"", key, "\" string=\"", flag, "\">", value,
                "</|DSML|parameter>\n");
}

TEST(StreamParser, DividesReasoningFromContent) {
  EXPECT_EQ(Parse("reason</think>answerEOS", Thinking()), "reason[answer] eos");
  EXPECT_EQ(Parse("\n\nreason\n\n</think>\n\nanswer\n", Thinking()), "reason[answer\n]");
  EXPECT_EQ(Parse("<think>\nreason <think> more</think>x", Thinking()), "reason <think> more[x]");
  EXPECT_EQ(Parse("only reasoning", Thinking()), "only reasoning[]");
  EXPECT_EQ(Parse("ans</think>wer</thin"), "[answer</thin]");
}

TEST(StreamParser, ReadsCallsAfterText) {
  EXPECT_EQ(Parse(StrCat("Let me look.\n\n", kCall)), StrCat("[Let me look.]", kCallTrace));
  EXPECT_EQ(Parse(StrCat("r\n</think>\n\n", kCall), Thinking()), StrCat("r[]", kCallTrace));
}

TEST(StreamParser, ReadsSpacedTagsInV41) {
  EXPECT_EQ(Parse("x\n\n<|DSML| calls>\n<|DSML| invoke name=\"crm::f\">\n"
                  "<|DSML| parameter name=\"a\" string=\"true\">v</|DSML| parameter>\n"
                  "</|DSML| invoke>\n</|DSML| calls>EOS",
                  {.format = Format::kV4_1}),
            "[x] f({\"a\": \"v\"}) eos");
}

TEST(StreamParser, OpenersOfTheOtherGenerationOpenNothing) {
  EXPECT_EQ(Parse("x <|DSML| calls> y"), "[x < calls> y]");
  EXPECT_EQ(Parse("x <|DSML|tool_calls> y", {.format = Format::kV4_1}), "[x <tool_calls> y]");
}

TEST(StreamParser, AgreesWithTheStrictParserOnWellFormedText) {
  for (const JsonValue& golden : GoldenCases("parse_v4_strict.json")) {
    const bool thinking = TextOf(golden, "thinking_mode") == "thinking";
    const std::string text = TextOf(golden, "text");
    Parse(text, {.thinking = thinking});  // cuts, also of the malformed ones
    const Result<ParsedMessage> strict = ParseStrict(text, {.thinking = thinking});
    if (!strict.ok() || TextOf(golden, "name") == "non_json_false_value") continue;
    EXPECT_EQ(MessageToJson(ParseCompletion(text, {.thinking = thinking})), MessageToJson(*strict))
        << TextOf(golden, "name");
  }
}

TEST(StreamParser, WithoutToolsDsmlIsOrdinaryText) {
  const ParserOptions options{.parse_tools = false};
  const std::string text = Dsml("see <|DSML|tool_calls> and |DSML|");
  EXPECT_EQ(Parse("see <|DSML|tool_calls> and |DSML|", options), StrCat("[", text, "]"));
}

TEST(StreamParser, InsideBlockStartsBetweenCalls) {
  EXPECT_EQ(Parse("<|DSML|invoke name=\"f\">\n</|DSML|invoke>\n</|DSML|tool_calls>EOS",
                  {.inside_block = true}),
            "[] f({}) eos");
}

// --- Stop strings
// ----------------------------------------------------------------------------------

TEST(StopStrings, EndTheAnswerOnly) {
  ParserOptions options{.thinking = true, .stops = {"STOP"}};
  EXPECT_EQ(Parse("a STOP b</think>one STOP two", options), "a STOP b[one ] stop STOP");
  EXPECT_EQ(Parse(StrCat("r</think>", CallWith(Parameter("STOP"))), options),
            "r[] f({\"a\": \"STOP\"})");
  EXPECT_EQ(Parse(StrCat("r</think>x STOP\n\n", kCall), options), "r[x ] stop STOP");
}

TEST(StopStrings, NewlinesBeforeABlockAreNotAnswerText) {
  EXPECT_EQ(Parse(StrCat("x\n\n", kCall), {.stops = {"\n\n"}}), StrCat("[x]", kCallTrace));
  EXPECT_EQ(Parse("x\n\ny", {.stops = {"\n\n"}}), "[x] stop \n\n");
  EXPECT_EQ(Parse("x\n\nEOS", {.stops = {"\n\n"}}), "[x] stop \n\n");
}

// --- chat.md 8.3, rule by rule
// ---------------------------------------------------------------------

TEST(Rule2, AnIncompleteOpenerCommitsNothing) {
  EXPECT_EQ(Parse("x\n\n<|DSML|tool_callsEOS"), "[x\n\n<tool_calls] eos");
  EXPECT_EQ(Parse("x\n\n<|DSML|tool_ca"), "[x]");
}

TEST(Rule3, ABlockEndsUnclosedReasoning) {
  EXPECT_EQ(Parse(StrCat("r\n\n", kCall), Thinking()), StrCat("r[]", kCallTrace));
  EXPECT_EQ(Parse(StrCat("r\n\n", CallWith(""), "</think>EOS"), Thinking()), "r[] f({}) eos");
}

TEST(Rule4, AMissingCloserEndsAtTheNextTag) {
  EXPECT_EQ(Parse(CallWith(StrCat("<|DSML|parameter name=\"a\" string=\"true\">x\n",
                                  Parameter("1", "b", "false")))),
            "[] f({\"a\": \"x\\n\", \"b\": 1})");
  EXPECT_EQ(Parse(CallWith("<|DSML|parameter name=\"a\" string=\"true\">x")),
            "[] f({\"a\": \"x\"})");
  EXPECT_EQ(
      Parse("<|DSML|tool_calls>\n<|DSML|invoke name=\"f\">\n<|DSML|parameter name=\"a\" "
            "string=\"true\">x<|DSML|invoke name=\"g\">\n</|DSML|invoke>\n</|DSML|tool_calls>"),
      "[] f({\"a\": \"x\"}) g({})");
}

TEST(Rule4, APartialCloserNeverLeaks) {
  EXPECT_EQ(Parse(CallWith("<|DSML|parameter name=\"a\" string=\"true\">x</|DSML|parameter\n")),
            "[] f({\"a\": \"x\"})");
  EXPECT_EQ(Parse("<|DSML|tool_calls>\n<|DSML|invoke name=\"f\">\n<|DSML|parameter name=\"a\" "
                  "string=\"true\">x</|DSML|para"),
            "[] f({\"a\": \"x\"...");
}

TEST(Rule5, NonJsonBecomesAString) {
  EXPECT_EQ(Parse(CallWith(Parameter("not json", "a", "false"))), "[] f({\"a\": \"not json\"})");
  EXPECT_EQ(Parse(CallWith(Parameter("{\"k\": 1e5}", "a", "false"))),
            "[] f({\"a\": {\"k\": 1e5}})");
}

TEST(Rule5, TheSchemaDecidesWhereNothingIsLost) {
  const auto weather = [](std::string_view parameters) {
    return Parse(StrCat("<|DSML|tool_calls>\n<|DSML|invoke name=\"get_weather\">\n", parameters,
                        "</|DSML|invoke>\n</|DSML|tool_calls>"),
                 WithTools());
  };
  EXPECT_EQ(weather(Parameter("75001", "city", "false")), "[] get_weather({\"city\": \"75001\"})");
  EXPECT_EQ(weather(Parameter("3", "days", "true")), "[] get_weather({\"days\": 3})");
  EXPECT_EQ(weather(Parameter("three", "days", "true")), "[] get_weather({\"days\": \"three\"})");
  EXPECT_EQ(weather(Parameter("3.5", "days", "true")), "[] get_weather({\"days\": \"3.5\"})");
}

TEST(Rule5, AMissingFlagIsReadAsJsonElseAsString) {
  EXPECT_EQ(Parse(CallWith("<|DSML|parameter name=\"a\">3</|DSML|parameter>\n"
                           "<|DSML|parameter name=\"b\">x</|DSML|parameter>\n")),
            "[] f({\"a\": 3, \"b\": \"x\"})");
}

std::string WeatherCall(std::string_view parameters) {
  return StrCat("<|DSML|tool_calls>\n<|DSML|invoke name=\"get_weather\">\n", parameters,
                "</|DSML|invoke>\n</|DSML|tool_calls>");
}

TEST(Rule6, ASpuriousWrapperIsRemoved) {
  for (const char* key : {"arguments", "input"}) {
    EXPECT_EQ(Parse(WeatherCall(Parameter("{\"city\": \"Rome\"}", key, "false")), WithTools()),
              "[] get_weather({\"city\": \"Rome\"})");
  }
  EXPECT_EQ(Parse(WeatherCall(Parameter("{\"town\": 1}", "input", "false")), WithTools()),
            "[] get_weather({\"input\": {\"town\": 1}})");
  EXPECT_EQ(Parse(WeatherCall(Parameter("{\"city\": \"Rome\"}", "input", "false") +
                              Parameter("2", "days", "false")),
                  WithTools()),
            "[] get_weather({\"input\": {\"city\": \"Rome\"}, \"days\": 2})");
}

TEST(Rule7, AJsonBodyIsTheArguments) {
  EXPECT_EQ(Parse(CallWith("{\"a\": {\"b\": 1}}\n")), "[] f({\"a\": {\"b\": 1}})");
  EXPECT_EQ(Parse(CallWith("```json\n{\"a\": 1}\n```\n")), "[] f({\"a\": 1})");
  EXPECT_EQ(Parse(CallWith("{broken\n")), "[] f({})");
  EXPECT_EQ(Parse(CallWith(StrCat("{\"a\": 1}", Parameter("v")))), "[] f({\"a\": \"v\"})");
}

TEST(Rule8, UnknownNamesAreReturnedAsTheyAre) {
  EXPECT_EQ(Parse(CallWith(""), WithTools()), "[] f({})");
}

TEST(Rule11, ATruncatedCallKeepsItsBeginning) {
  const std::string text = Dsml(kCall);
  const std::string all = "{\"a\": \"x\\ny \\\"q\\\"\", \"b\": [1, 2]}";
  size_t started = 0;
  for (size_t length = 0; length < text.size(); ++length) {
    const ParsedMessage message = ParseCompletion(text.substr(0, length), {});
    if (message.tool_calls.empty()) continue;
    ++started;
    const ParsedCall& call = message.tool_calls[0];
    EXPECT_EQ(call.name, "f");
    EXPECT_TRUE(all.starts_with(call.arguments)) << call.arguments;
    EXPECT_EQ(call.complete, call.arguments == all) << length;
  }
  EXPECT_GT(started, 50u);
}

TEST(Rule11, ACallCutInsideItsNameIsNotReported) {
  EXPECT_EQ(Parse("x\n\n<|DSML|tool_calls>\n<|DSML|invoke name=\"get_wea"), "[x]");
}

TEST(Rule12, HeldTextArrivesAtTheEnd) {
  EXPECT_EQ(Parse("2 <"), "[2 <]");
  EXPECT_EQ(Parse("a </thi"), "[a </thi]");
  EXPECT_EQ(Parse("x\n\n"), "[x\n\n]");
}

TEST(Rule15, TheTokenIsStrippedFromText) {
  EXPECT_EQ(Parse("a |DSML| b <|DSML|foo> c"), "[a  b <foo> c]");
  EXPECT_EQ(Parse("r |DSML|</think>x", Thinking()), "r [x]");
}

TEST(Rule15, EosInsideABlockEndsEverything) {
  EXPECT_EQ(Parse("<|DSML|tool_calls>\n<|DSML|invoke name=\"f\">\n<|DSML|parameter name=\"a\" "
                  "string=\"true\">xEOS more"),
            "[] f({\"a\": \"x... eos");
  EXPECT_EQ(Parse("<|DSML|tool_calls>EOSmore"), "[] eos");
}

// --- chat.md 8.5: reported bugs
// --------------------------------------------------------------------

TEST(ReportedBug, Vllm40800RawDsmlLeaksWhileStreaming) {
  const std::string text = Dsml(StrCat("Sure.\n\n", kCall));
  std::string shown;
  StreamParser parser({}, [&shown](const Event& event) {
    if (event.kind == Event::Kind::kContent) shown += event.text;
  });
  for (const char& c : text) {
    parser.Feed({&c, 1});
    EXPECT_TRUE(std::string("Sure.").starts_with(shown)) << shown;
  }
}

TEST(ReportedBug, Vllm53227CloserAppendedToAnArgument) {
  EXPECT_EQ(Parse(CallWith(Parameter("ls -la"))), "[] f({\"a\": \"ls -la\"})");
  EXPECT_EQ(Parse(CallWith("<|DSML|parameter name=\"a\" string=\"true\">ls</|DSML|parameter\n")),
            "[] f({\"a\": \"ls\"})");
}

TEST(ReportedBug, Vllm45877ValueContainsAngleBrackets) {
  EXPECT_EQ(Parse(CallWith(Parameter("make 2>&1 > log < in </parameter>"))),
            "[] f({\"a\": \"make 2>&1 > log < in </parameter>\"})");
}

TEST(ReportedBug, Vllm45862BlockInsideUnclosedThinkIsLost) {
  EXPECT_EQ(Parse(StrCat("I will call it.\n", kCall), Thinking()),
            StrCat("I will call it.[]", kCallTrace));
}

TEST(ReportedBug, LlamaCpp25891StrayThinkCloseAfterTheBlock) {
  EXPECT_EQ(Parse("r\n<|DSML|tool_calls>\n</think>\n<|DSML|invoke name=\"f\">\n</|DSML|invoke>\n"
                  "</|DSML|tool_calls></think>EOS",
                  Thinking()),
            "r[] f({}) eos");
}

TEST(ReportedBug, Vllm48931LostWrapperIsRecoveredForADeclaredTool) {
  const std::string call = StrCat("<|DSML|invoke name=\"get_weather\">\n",
                                  Parameter("Rome", "city"), "</|DSML|invoke>\n");
  EXPECT_EQ(Parse(StrCat("ok\n\n", call, "</|DSML|tool_calls>EOS"), WithTools()),
            "[ok] get_weather({\"city\": \"Rome\"}) eos");
  EXPECT_EQ(Parse(StrCat(call, call), WithTools()),
            "[] get_weather({\"city\": \"Rome\"}) get_weather({\"city\": \"Rome\"})");
  ParserOptions off = WithTools();
  off.recover_lost_opener = false;
  EXPECT_EQ(Parse("<|DSML|invoke name=\"get_weather\">x", off), "[<invoke name=\"get_weather\">x]");
}

TEST(ReportedBug, Vllm49117ProseIsNotTakenForACall) {
  EXPECT_EQ(Parse("say <|DSML|invoke name=\"get_weather\"> to call", WithTools()),
            "[say <invoke name=\"get_weather\"> to call]");
  EXPECT_EQ(Parse("<|DSML|invoke name=\"get_weather\">\n</|DSML|invoke> lacks city", WithTools()),
            "[<invoke name=\"get_weather\">\n</invoke> lacks city]");
  EXPECT_EQ(Parse("<|DSML|invoke name=\"other\">\n</|DSML|invoke>", WithTools()),
            "[<invoke name=\"other\">\n</invoke>]");
}

TEST(ReportedBug, Vllm49117ProseBeforeARealBlock) {
  EXPECT_EQ(Parse(StrCat("use <|DSML|invoke name=\"wrap\">\n\n", kCall), WithTools()),
            StrCat("[use <invoke name=\"wrap\">]", kCallTrace));
}

TEST(ReportedBug, Vllm51914WrapperVariants) {
  for (const char* name : {"toolcalls", "function_calls"}) {
    EXPECT_EQ(
        Parse(StrCat("<|DSML|", name, ">\n<|DSML|invoke name=\"f\">\n</|DSML|invoke>\n</|DSML|",
                     name, ">tail")),
        "[] f({})");
  }
}

TEST(ReportedBug, Vllm52645ToolcallWithNameAndJsonFence) {
  EXPECT_EQ(
      Parse("ok\n\n<|DSML|toolcall>Read\n```json\n{\"path\": \"a\"}\n```\n</|DSML|toolcall>EOS"),
      "[ok] Read({\"path\": \"a\"}) eos");
  EXPECT_EQ(Parse("<|DSML|toolcall>A\n{}</|DSML|toolcall>\n<|DSML|toolcall>B\n{}</|DSML|toolcall>"),
            "[] A({}) B({})");
  EXPECT_EQ(Parse("<|DSML|toolcall>\n<|DSML|invoke name=\"f\">\n</|DSML|invoke>"), "[] f({})");
}

TEST(ReportedBug, Vllm56184EmptyBlockKeepsTheTextBefore) {
  EXPECT_EQ(Parse("answer\n\n<|DSML|tool_calls>\n</|DSML|tool_calls>EOS"), "[answer] eos");
}

TEST(ReportedBug, Vllm56184StrayClosersAreDroppedFromText) {
  EXPECT_EQ(Parse("a</|DSML|parameter>b</|DSML|invoke>c</|DSML|tool_calls>d"), "[abcd]");
}

TEST(ReportedBug, Vllm41240RealParameterNamedArguments) {
  EXPECT_EQ(Parse("<|DSML|tool_calls>\n<|DSML|invoke name=\"wrap\">\n" +
                      Parameter("{\"arguments\": 1}", "arguments", "false") +
                      "</|DSML|invoke>\n</|DSML|tool_calls>",
                  WithTools()),
            "[] wrap({\"arguments\": {\"arguments\": 1}})");
}

TEST(ReportedBug, Vllm41241HeldLessThanSignIsLost) {
  EXPECT_EQ(Parse("because 1 < 2 <"), "[because 1 < 2 <]");
}

TEST(ReportedBug, Vllm53831DeepEffortWithEmptyContentReturnsReasoning) {
  EXPECT_EQ(Parse("long thoughtEOS", Thinking()), "long thought[] eos");
}

TEST(ReportedBug, Vllm51651NoReasoningOnAToolTurn) {
  EXPECT_EQ(Parse(StrCat("</think>\n\n", kCall), Thinking()), StrCat("[]", kCallTrace));
}

// The shapes of SGLang's fuzzing: other wrapper names, none, unterminated.
TEST(ReportedBug, Sglang39632FuzzedShapesNeverLeak) {
  for (const char* opener : {"<|DSML|tool_calls>", "<|DSML|function_calls>", "<|DSML|calls>",
                             "<|DSML|tool_call>", "<|DSML|>", "|DSML|tool_calls>", ""}) {
    for (const char* body :
         {"\n<|DSML|invoke name=\"f\">\n", "<|DSML|invoke name=f>", "<|DSML|invoke>", "{\"a\": 1}",
          "\n<|DSML|invoke name=\"f\"\n<|DSML|parameter name=\"a\" "
          "string=\"true\"x</|DSML|parameter>"}) {
      for (const char* closer : {"</|DSML|invoke>\n</|DSML|tool_calls>", "</|DSML|invoke>",
                                 "<|DSML|/invoke>", "</|DSML|", "|DSML|", ""}) {
        EXPECT_EQ(Parse(StrCat("t", opener, body, closer), WithTools()).find(kDsml),
                  std::string::npos);
      }
    }
  }
}

// --- Properties
// --------------------------------------------------------------------------------------

std::string RandomCompletion() {
  const std::vector<std::string> pieces = {"</think>",
                                           "<think>",
                                           "\n",
                                           "\n\n",
                                           "text",
                                           " ",
                                           "<",
                                           ">",
                                           "\"",
                                           "{\"a\": 1}",
                                           "STOP",
                                           "EOS",
                                           "|DSML|",
                                           "<|DSML|",
                                           "</|DSML|",
                                           "<|DSML|tool_calls>",
                                           "</|DSML|tool_calls>",
                                           "<|DSML|toolcall>",
                                           "<|DSML| calls>",
                                           "<|DSML|invoke name=\"",
                                           "get_weather\">\n",
                                           "</|DSML|invoke>",
                                           "<|DSML|parameter name=\"city\" string=\"true\">",
                                           "<|DSML|parameter name=\"days\" string=\"false\">",
                                           "</|DSML|parameter>",
                                           "```",
                                           "\xEF\xBD",
                                           "\x9C",
                                           "DS",
                                           "ML"};
  const auto chosen = *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(pieces));
  std::string text;
  for (const std::string& piece : chosen) text += piece;
  return Dsml(text);
}

ParserOptions RandomOptions() {
  ParserOptions options = *rc::gen::arbitrary<bool>() ? WithTools() : ParserOptions{};
  options.thinking = *rc::gen::arbitrary<bool>();
  options.format = *rc::gen::element(Format::kV4Preview, Format::kV4_1);
  if (*rc::gen::arbitrary<bool>()) options.stops = {"STOP", "xt\n"};
  return options;
}

void CheckCutsAndLeaks(const std::string& text, const ParserOptions& options) {
  const std::string whole = Whole(text, options);
  RC_ASSERT(whole.find(kDsml) == std::string::npos);
  Trace trace(options);
  for (size_t i = 0; i < text.size();) {
    const size_t length = *rc::gen::inRange<size_t>(1, 9);
    trace.Feed(std::string_view(text).substr(i, length));
    i += length;
  }
  RC_ASSERT(trace.Finish() == whole);
}

RC_GTEST_PROP(StreamParserProperty, RandomMarkupNeitherLeaksNorDependsOnTheCuts, ()) {
  CheckCutsAndLeaks(RandomCompletion(), RandomOptions());
}

RC_GTEST_PROP(StreamParserProperty, MutatedCallsNeitherLeakNorDependOnTheCuts, ()) {
  std::string text = Dsml(StrCat("r</think>ok\n\n", kCall));
  const auto edits = *rc::gen::inRange(1, 6);
  for (int i = 0; i < edits; ++i) {
    const size_t at = *rc::gen::inRange<size_t>(0, text.size());
    const size_t length = *rc::gen::inRange<size_t>(0, 5);
    text.replace(at, length,
                 *rc::gen::container<std::string>(*rc::gen::inRange<size_t>(0, 3),
                                                  rc::gen::arbitrary<char>()));
    RC_PRE(!text.empty());
  }
  CheckCutsAndLeaks(text, RandomOptions());
}

RC_GTEST_PROP(StreamParserProperty, ArgumentsOfCompleteCallsAreJson, ()) {
  for (const ParsedCall& call : ParseCompletion(RandomCompletion(), RandomOptions()).tool_calls) {
    if (!call.complete) continue;
    const Result<JsonValue> json = ParseJsonValue(call.arguments, "arguments");
    // Half characters in a value stay what they are; JSON wants UTF-8.
    const bool is_utf8 = call.arguments.find_first_of("\xEF\xBD\x9C") == std::string::npos;
    RC_ASSERT(!is_utf8 || (json.ok() && json->IsObject()));
  }
}

TEST(StreamParser, HostileTextCostsLinearTime) {
  for (const char* unit :
       {"\n", "<", "</", "\xEF\xBD\x9C", "<|DSML|invoke name=\"get_weather\">"}) {
    std::string text;
    while (text.size() < (1u << 19)) text += Dsml(unit);
    Trace trace(WithTools());
    for (size_t i = 0; i < text.size(); i += 3) trace.Feed(std::string_view(text).substr(i, 3));
    trace.Finish();
  }
}

}  // namespace
}  // namespace cachalot::chat
