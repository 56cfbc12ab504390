// SPDX-License-Identifier: Apache-2.0
// JSON Schema to automaton. Which keywords: docs/design/grammar.md.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "cachalot/base/error.h"
#include "cachalot/base/json.h"
#include "cachalot/grammar/json_pieces.h"
#include "cachalot/grammar/nfa.h"
#include "cachalot/grammar/text_automaton.h"
#include "cachalot/grammar/text_writer.h"

namespace cachalot::grammar {

class SchemaCompiler {
 public:
  // `root` outlives the compiler; `name` starts the paths of errors.
  SchemaCompiler(Nfa& nfa, const Json& root, std::string name)
      : nfa_(nfa), json_(nfa), texts_(nfa), root_(root), name_(std::move(name)) {}

  Result<Piece> Compile() { return Schema(root_, name_); }
  // One property's value, for grammars that frame values in another way.
  Result<Piece> Schema(const Json& schema, const std::string& path);
  // An error at `path` if the automaton is already larger than a request may make it.
  static Status CheckSize(const Nfa& nfa, const std::string& path);
  // What pattern, format and lengths ask of a string; nullopt: nothing.
  static Result<std::optional<TextAutomaton>> StringCondition(const Json& schema,
                                                              const std::string& path);

 private:
  Result<Piece> Reference(const std::string& pointer, const std::string& path);
  Result<Piece> Options(const Json& list, const std::string& path);
  Result<Piece> OfType(const std::string& type, const Json& schema, const std::string& path);
  Result<Piece> OfObject(const Json& schema, const std::string& path);
  Result<Piece> OfMap(const Json& schema, const std::string& path);
  Result<Piece> NameSchema(const Json& schema, const std::string& path);
  Result<Piece> OfArray(const Json& schema, const std::string& path);
  Result<Piece> OfString(const Json& schema, const std::string& path);
  Result<Piece> OfNumber(bool integer, const Json& schema, const std::string& path);
  Piece Values(const Json& list);

  Nfa& nfa_;
  JsonPieces json_;
  TextWriter texts_;
  const Json& root_;
  std::string name_;
  std::map<std::string, uint32_t> references_;  // pointer, rule
  int depth_ = 0;
};

}  // namespace cachalot::grammar
