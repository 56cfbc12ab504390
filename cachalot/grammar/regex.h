// SPDX-License-Identifier: Apache-2.0
// Regular expressions to text automata. Internal to the module.
#pragma once

#include <string_view>

#include "cachalot/base/error.h"
#include "cachalot/grammar/text_automaton.h"

namespace cachalot::grammar {

// The texts in which the expression matches somewhere, as JSON Schema's `pattern` has it: only ^
// and $ tie it to the ends, and $ is no line break's business. Pruned; errors: regex_parser.h, and
// kUnsupported for what grows too large.
Result<TextAutomaton> CompileRegex(std::string_view pattern);

}  // namespace cachalot::grammar
