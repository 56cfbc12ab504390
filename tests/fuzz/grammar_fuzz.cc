// SPDX-License-Identifier: Apache-2.0
// Any bytes as a schema, then as a text held against it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "cachalot/grammar/grammar.h"
#include "cachalot/grammar/matcher.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cachalot::grammar;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  // A zero byte parts the schema from the text.
  const size_t end = input.find('\0');
  auto grammar = Grammar::FromJsonSchema(input.substr(0, end));
  if (!grammar.ok()) return 0;
  Automaton automaton(*grammar, std::make_shared<Vocabulary>());
  if (end == std::string_view::npos) return 0;
  automaton.Complete(automaton.Advance(automaton.start(), input.substr(end + 1)));
  return 0;
}
