// SPDX-License-Identifier: Apache-2.0
// The byte strings the stream parser looks for in each of its states. Internal to the module.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/chat/format.h"

namespace cachalot::chat {

enum class Mark : uint8_t {
  kEos,
  kThinkOpen,
  kThinkClose,
  kOpener,          // a whole tag that opens a block
  kToolcallOpener,  // <..toolcall>, a variant that goes on with the name [chat.md 8.3, rule 10]
  kLostInvoke,      // <..invoke name=" outside of a block
  kStrayCloser,     // a known closing tag outside of a block
  kInvoke,          // invoke name="
  kParameter,       // parameter name="
  kCloser,          // </.., the name to follow
  kBlockCloser,     // </..tool_calls and the like
  kInvokeCloser,    // </..invoke>
  kTag,             // <.., <..parameter, <..invoke: what ends a text by opening something else
};

struct Pattern {
  std::string text;
  Mark mark;
};

// None of a set is the beginning of another one of it, unless both mean the same.
struct PatternSet {
  std::vector<Pattern> patterns;
  std::string first;  // the bytes they begin with

  void Add(Mark mark, std::string text);
};

// The first place of `text` from `from` on where a pattern stands, or may stand when more bytes
// come.
struct Hit {
  size_t pos;              // text.size() if there is none
  const Pattern* pattern;  // null if there is none, or not all of it is there
  bool partial;            // text ends inside what may become a pattern
};
Hit Find(const PatternSet& set, std::string_view text, size_t from);

struct DsmlPatterns {
  PatternSet reasoning;
  PatternSet content;
  PatternSet recover;
  PatternSet block;
  PatternSet args;
  PatternSet body;
  PatternSet value;
  PatternSet done;
};
// Outside of blocks the spelling of `format` counts, with the wrapper variants of rule 10; inside
// both spellings are read. `recover`: look for invokes outside of blocks.
DsmlPatterns MakePatterns(Format format, bool parse_tools, bool recover);

// What a closing tag closes, from the bytes after "</|DSML|".
enum class Closed : uint8_t { kNeedsMore, kUnknown, kParameter, kInvoke, kBlock };
Closed ClosedBy(std::string_view rest, bool at_end);

}  // namespace cachalot::chat
