// SPDX-License-Identifier: Apache-2.0
// Any bytes as a schema (after a byte 1: as GBNF, 2: as an expression), then as a text held against
// it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "cachalot/grammar/grammar.h"
#include "cachalot/grammar/matcher.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cachalot::grammar;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  // A zero byte parts the grammar from the text.
  const size_t end = input.find('\0');
  std::string_view text = input.substr(0, end);
  const char kind = text.empty() ? '\0' : text[0];
  if (kind == 1 || kind == 2) text.remove_prefix(1);
  auto grammar = kind == 1   ? Grammar::FromGbnf(text)
                 : kind == 2 ? Grammar::FromRegex(text)
                             : Grammar::FromJsonSchema(text);
  if (!grammar.ok()) return 0;
  Automaton automaton(*grammar, std::make_shared<Vocabulary>());
  if (end == std::string_view::npos) return 0;
  automaton.Complete(automaton.Advance(automaton.start(), input.substr(end + 1)));
  return 0;
}
