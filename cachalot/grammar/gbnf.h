// SPDX-License-Identifier: Apache-2.0
// llama.cpp's grammars. Internal to the module.
#pragma once

#include <string_view>

#include "cachalot/base/error.h"
#include "cachalot/grammar/nfa.h"

namespace cachalot::grammar {

// name ::= alternatives, of "text" with escapes, [a-z] and [^a-z], '.', names, groups, and * + ?
// {2} {2,} {2,5} behind them; # begins a comment. A rule goes on until the next `name ::=`. Its
// piece is that of the rule `root`. kInvalidArgument names the line; a rule that could call itself
// before it has read anything is refused, as there.
Result<Piece> CompileGbnf(std::string_view text, Nfa& nfa);

}  // namespace cachalot::grammar
