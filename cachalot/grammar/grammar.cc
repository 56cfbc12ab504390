// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/grammar.h"

#include <algorithm>
#include <utility>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/grammar/gbnf.h"
#include "cachalot/grammar/json_pieces.h"
#include "cachalot/grammar/regex.h"
#include "cachalot/grammar/schema_compiler.h"

namespace cachalot::grammar {
namespace {

// The parser needs the name between quotes and no line break. [chat.md 4.7]
Status CheckName(std::string_view name, std::string_view what) {
  for (const char c : name) {
    if (c == '"' || c == '<' || c == '>' || static_cast<unsigned char>(c) < 0x20) {
      return Error{ErrorCode::kInvalidArgument,
                   StrCat(what, " '", name, "' cannot be written in a tool call")};
    }
  }
  return {};
}

// Any text up to and with `closer`, the first one. Its first byte occurs in it only once, so after
// a mismatch the search goes on at its first or second byte.
Piece TextUntil(Nfa& nfa, std::string_view closer) {
  std::vector<State> states;
  for (size_t i = 0; i <= closer.size(); ++i) states.push_back(nfa.AddState());
  const auto open = static_cast<uint8_t>(closer[0]);
  for (size_t i = 0; i < closer.size(); ++i) {
    const auto next = static_cast<uint8_t>(closer[i]);
    nfa.AddByte(states[i], next, next, states[i + 1]);
    if (i > 0) nfa.AddByte(states[i], open, open, states[1]);
    for (int byte = 0; byte < 256; ++byte) {
      if (byte == next || byte == open) continue;
      int last = byte;
      while (last + 1 < 256 && last + 1 != next && last + 1 != open) ++last;
      nfa.AddByte(states[i], static_cast<uint8_t>(byte), static_cast<uint8_t>(last), states[0]);
      byte = last;
    }
  }
  return {states.front(), states.back()};
}

bool IsString(const Json& schema) {
  const auto type = schema.is_object() ? schema.find("type") : schema.end();
  return schema.is_object() && type != schema.end() && *type == "string";
}

// One tool's call: <D invoke name="N">\n, parameters in the order declared, </D invoke>\n.
class CallWriter {
 public:
  CallWriter(Nfa& nfa, const ToolGrammar& tools) : nfa_(nfa), texts_(nfa), tools_(tools) {}

  Result<Piece> Call(const ToolGrammar::Tool& tool) {
    CACHALOT_RETURN_IF_ERROR(CheckName(tool.name, "tool"));
    std::vector<Piece> parts = {
        nfa_.Literal(StrCat("<", tools_.dsml, tools_.invoke_tag, " name=\"", tool.name, "\">\n"))};
    if (!tool.parameters.empty()) {
      CACHALOT_TRY(const Json schema, ParseJson(tool.parameters, tool.name));
      const auto properties = schema.is_object() ? schema.find("properties") : schema.end();
      if (schema.is_object() && properties != schema.end() && properties->is_object()) {
        const Json required = schema.value("required", Json::array());
        for (const auto& [name, property] : properties->items()) {
          CACHALOT_TRY(const Piece one, Parameter(schema, tool.name, name, property));
          const bool must = std::find(required.begin(), required.end(), name) != required.end();
          parts.push_back(must ? one : nfa_.Optional(one));
        }
      }
    }
    parts.push_back(nfa_.Literal(StrCat("</", tools_.dsml, tools_.invoke_tag, ">\n")));
    return nfa_.Sequence(parts);
  }

 private:
  Result<Piece> Parameter(const Json& root, const std::string& tool, const std::string& name,
                          const Json& schema) {
    CACHALOT_RETURN_IF_ERROR(CheckName(name, "parameter"));
    CACHALOT_RETURN_IF_ERROR(SchemaCompiler::CheckSize(nfa_, PathOf(tool, name)));
    const std::string closer = StrCat("</", tools_.dsml, tools_.parameter_tag, ">");
    const auto opener = [&](bool string) {
      return nfa_.Literal(StrCat("<", tools_.dsml, tools_.parameter_tag, " name=\"", name,
                                 "\" string=\"", string ? "true" : "false", "\">"));
    };
    const bool free_text =
        IsString(schema) && !schema.contains("enum") && !schema.contains("const");
    if (free_text) {
      CACHALOT_TRY(const auto condition,
                   SchemaCompiler::StringCondition(schema, PathOf(tool, name)));
      if (condition) {
        // The value is written as it is, so it must not close its own tag.
        CACHALOT_TRY(const TextAutomaton texts, Intersect(*condition, Without(closer)));
        if (texts.empty()) return Error{ErrorCode::kInvalidArgument, "no text can be so"};
        return nfa_.Sequence(
            {opener(true), texts_.Plain(texts), nfa_.Literal(closer), nfa_.Literal("\n")});
      }
      return nfa_.Sequence({opener(true), TextUntil(nfa_, closer), nfa_.Literal("\n")});
    }
    if (IsString(schema) && schema.contains("enum") && schema["enum"].is_array()) {
      std::vector<Piece> values;
      for (const Json& value : schema["enum"]) {
        if (value.is_string()) values.push_back(nfa_.Literal(value.get<std::string>()));
      }
      if (!values.empty()) {
        return nfa_.Sequence(
            {opener(true), nfa_.Choice(values), nfa_.Literal(closer), nfa_.Literal("\n")});
      }
    }
    SchemaCompiler compiler(nfa_, root, StrCat("tools.", tool));
    CACHALOT_TRY(const Piece value, compiler.Schema(schema, PathOf(tool, name)));
    return nfa_.Sequence({opener(false), value, nfa_.Literal(closer), nfa_.Literal("\n")});
  }

  static std::string PathOf(std::string_view tool, std::string_view parameter) {
    return StrCat("tools.", tool, ".properties.", parameter);
  }

  Nfa& nfa_;
  TextWriter texts_;
  const ToolGrammar& tools_;
};

}  // namespace

void Grammar::Begin(Piece body) {
  nfa_.DefineRule(nfa_.DeclareRule(), body);
  begin_ = body.begin;
}

Result<std::shared_ptr<const Grammar>> Grammar::FromJsonSchema(std::string_view text) {
  const auto schema = ParseJson(text, "schema");
  if (!schema.ok()) return Error{ErrorCode::kInvalidArgument, schema.error().message};
  auto grammar = std::make_shared<Grammar>();
  SchemaCompiler compiler(grammar->nfa_, *schema, "schema");
  CACHALOT_TRY(const Piece body, compiler.Compile());
  grammar->Begin(body);
  return std::shared_ptr<const Grammar>(std::move(grammar));
}

Result<std::shared_ptr<const Grammar>> Grammar::FromRegex(std::string_view expression) {
  CACHALOT_TRY(const TextAutomaton texts, CompileRegex(StrCat("^(?:", expression, ")$")));
  if (texts.empty()) return Error{ErrorCode::kInvalidArgument, "no text matches"};
  auto grammar = std::make_shared<Grammar>();
  grammar->Begin(TextWriter(grammar->nfa_).Plain(texts));
  return std::shared_ptr<const Grammar>(std::move(grammar));
}

std::shared_ptr<const Grammar> Grammar::FromChoice(const std::vector<std::string>& texts) {
  auto grammar = std::make_shared<Grammar>();
  std::vector<Piece> options;
  for (const std::string& text : texts) options.push_back(grammar->nfa_.Literal(text));
  grammar->Begin(grammar->nfa_.Choice(options));
  return grammar;
}

Result<std::shared_ptr<const Grammar>> Grammar::FromGbnf(std::string_view text) {
  auto grammar = std::make_shared<Grammar>();
  CACHALOT_TRY(const Piece root, CompileGbnf(text, grammar->nfa_));
  grammar->Begin(root);
  return std::shared_ptr<const Grammar>(std::move(grammar));
}

std::shared_ptr<const Grammar> Grammar::AnyJsonObject() {
  auto grammar = std::make_shared<Grammar>();
  JsonPieces json(grammar->nfa_);
  grammar->Begin(json.Object());
  return grammar;
}

Result<std::shared_ptr<const Grammar>> Grammar::FromTools(const ToolGrammar& tools) {
  auto grammar = std::make_shared<Grammar>();
  Nfa& nfa = grammar->nfa_;
  CallWriter writer(nfa, tools);
  std::vector<Piece> calls;
  for (const ToolGrammar::Tool& tool : tools.tools) {
    CACHALOT_TRY(const Piece call, writer.Call(tool));
    calls.push_back(call);
  }
  if (calls.empty()) return Error{ErrorCode::kInvalidArgument, "no tools to call"};
  const uint32_t rule = nfa.DeclareRule();
  nfa.DefineRule(rule, nfa.Choice(calls));
  const Piece more = tools.one_call ? nfa.Empty() : nfa.Star(nfa.CallRule(rule));
  const Piece body = nfa.Sequence(
      {nfa.CallRule(rule), more, nfa.Literal(StrCat("</", tools.dsml, tools.block_tag, ">"))});
  grammar->Begin(body);
  return std::shared_ptr<const Grammar>(std::move(grammar));
}

}  // namespace cachalot::grammar
