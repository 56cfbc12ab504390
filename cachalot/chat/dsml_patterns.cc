// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/dsml_patterns.h"

#include <algorithm>
#include <array>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/chat/markers.h"

namespace cachalot::chat {
namespace {

// Wrapper names; the first is V4.1's, the second V4's, the others are seen in the wild.
constexpr std::array<std::string_view, 4> kBlockNames = {"calls", "tool_calls", "toolcalls",
                                                         "function_calls"};
constexpr std::array<std::string_view, 2> kSpaces = {"", " "};

std::string Open(std::string_view rest) { return StrCat("<", kDsml, rest); }
std::string Close(std::string_view rest) { return StrCat("</", kDsml, rest); }

void AddOpeners(Format format, PatternSet& set) {
  const bool spaced = format == Format::kV4_1;
  for (const std::string_view name : kBlockNames) {
    if (!spaced && name == "calls") continue;
    set.Add(Mark::kOpener, Open(StrCat(spaced ? " " : "", name, ">")));
  }
  set.Add(Mark::kToolcallOpener, Open(spaced ? " toolcall>" : "toolcall>"));
}

void AddStrayClosers(PatternSet& set) {
  for (const std::string_view space : kSpaces) {
    for (const std::string_view name : kBlockNames) {
      set.Add(Mark::kStrayCloser, Close(StrCat(space, name, ">")));
    }
    for (const std::string_view name : {"toolcall", "invoke", "parameter"}) {
      set.Add(Mark::kStrayCloser, Close(StrCat(space, name, ">")));
    }
  }
}

PatternSet BlockPatterns() {
  PatternSet set;
  set.Add(Mark::kInvoke, "invoke name=\"");
  for (const std::string_view space : kSpaces) {
    set.Add(Mark::kToolcallOpener, Open(StrCat(space, "toolcall>")));
    for (const std::string_view name : kBlockNames) {
      set.Add(Mark::kBlockCloser, Close(StrCat(space, name)));
    }
  }
  return set;
}

PatternSet ValuePatterns() {
  PatternSet set;
  set.Add(Mark::kCloser, Close(""));
  for (const std::string_view space : kSpaces) {
    set.Add(Mark::kTag, Open(StrCat(space, "parameter ")));
    set.Add(Mark::kTag, Open(StrCat(space, "invoke ")));
  }
  return set;
}

}  // namespace

void PatternSet::Add(Mark mark, std::string text) {
  if (first.find(text[0]) == std::string::npos) first += text[0];
  patterns.push_back({std::move(text), mark});
}

Hit Find(const PatternSet& set, std::string_view text, size_t from) {
  size_t pos = text.find_first_of(set.first, from);
  for (; pos != std::string_view::npos; pos = text.find_first_of(set.first, pos + 1)) {
    const std::string_view rest = text.substr(pos);
    bool partial = false;
    for (const Pattern& pattern : set.patterns) {
      if (rest.starts_with(pattern.text)) return {pos, &pattern, false};
      partial = partial || (rest.size() < pattern.text.size() && pattern.text.starts_with(rest));
    }
    if (partial) return {pos, nullptr, true};
  }
  return {text.size(), nullptr, false};
}

DsmlPatterns MakePatterns(Format format, bool parse_tools, bool recover) {
  const DsmlTags tags = TagsOf(format);
  DsmlPatterns out;
  out.reasoning.Add(Mark::kThinkOpen, std::string(kThinkOpen));
  out.reasoning.Add(Mark::kThinkClose, std::string(kThinkClose));
  out.content.Add(Mark::kThinkClose, std::string(kThinkClose));
  if (parse_tools) {
    for (PatternSet* set : {&out.reasoning, &out.content, &out.recover}) AddOpeners(format, *set);
    AddStrayClosers(out.content);
    if (recover) out.content.Add(Mark::kLostInvoke, Open(StrCat(tags.invoke, " name=\"")));
  }
  out.recover.Add(Mark::kInvokeCloser, Close(StrCat(tags.invoke, ">")));
  out.block = BlockPatterns();
  out.args.Add(Mark::kParameter, "parameter name=\"");
  out.args.Add(Mark::kInvoke, "invoke name=\"");
  out.args.Add(Mark::kCloser, Close(""));
  out.body.Add(Mark::kTag, Open(""));
  out.body.Add(Mark::kCloser, Close(""));
  out.value = ValuePatterns();
  for (PatternSet* set : {&out.reasoning, &out.content, &out.recover, &out.block, &out.args,
                          &out.body, &out.value, &out.done}) {
    set->Add(Mark::kEos, std::string(kEos));
  }
  return out;
}

Closed ClosedBy(std::string_view rest, bool at_end) {
  // toolcall holds one call and so closes like an invoke.
  constexpr std::array<std::pair<std::string_view, Closed>, 7> kNames = {{
      {"parameter", Closed::kParameter},
      {"invoke", Closed::kInvoke},
      {"calls", Closed::kBlock},
      {"tool_calls", Closed::kBlock},
      {"toolcalls", Closed::kBlock},
      {"function_calls", Closed::kBlock},
      {"toolcall", Closed::kInvoke},
  }};
  if (rest.empty()) return at_end ? Closed::kUnknown : Closed::kNeedsMore;
  if (rest.starts_with(' ')) rest.remove_prefix(1);
  Closed closed = Closed::kUnknown;
  for (const auto& [name, what] : kNames) {
    if (!at_end && rest.size() < name.size() && name.starts_with(rest)) return Closed::kNeedsMore;
    if (closed == Closed::kUnknown && rest.starts_with(name)) closed = what;
  }
  return closed;
}

}  // namespace cachalot::chat
