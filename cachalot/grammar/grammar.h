// SPDX-License-Identifier: Apache-2.0
// Languages that an answer is held to: JSON of a schema, calls of declared tools.
// [api.md 4.8, 4.9; chat.md 6, 8.4; docs/design/grammar.md]
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/grammar/nfa.h"

namespace cachalot::grammar {

// The tools a call may name, and how its block is spelled.
struct ToolGrammar {
  struct Tool {
    std::string name;
    std::string parameters;  // JSON Schema of an object; empty: no parameters
  };
  std::vector<Tool> tools;  // at least one
  bool one_call = false;
  // chat.md 4.7, 6: the token between the angle brackets and the three tag names.
  std::string dsml, block_tag, invoke_tag, parameter_tag;
};

// Immutable, so thread-safe.
class Grammar {
 public:
  // JSON of this schema (text). kInvalidArgument or kUnsupported name the place:
  // "schema.properties.age.minimum".
  static Result<std::shared_ptr<const Grammar>> FromJsonSchema(std::string_view schema);
  // Texts that match as a whole: ^ and $ are implied.
  static Result<std::shared_ptr<const Grammar>> FromRegex(std::string_view expression);
  // One of these texts; at least one.
  static std::shared_ptr<const Grammar> FromChoice(const std::vector<std::string>& texts);
  // llama.cpp's GBNF, from its rule `root` on. kInvalidArgument names the line.
  static Result<std::shared_ptr<const Grammar>> FromGbnf(std::string_view text);
  // Any JSON object.
  static std::shared_ptr<const Grammar> AnyJsonObject();
  // What follows the opener of a tool block: calls of the tools and the closer.
  static Result<std::shared_ptr<const Grammar>> FromTools(const ToolGrammar& tools);

  const Nfa& nfa() const { return nfa_; }
  State begin() const { return begin_; }

 private:
  void Begin(Piece body);

  Nfa nfa_;
  State begin_ = 0;
};

}  // namespace cachalot::grammar
