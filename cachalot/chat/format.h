// SPDX-License-Identifier: Apache-2.0
// The three generations of the prompt format and how to tell them apart. [chat.md 1]
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cachalot/base/error.h"

namespace cachalot::chat {

enum class Format : uint8_t {
  kV4Preview,  // V4-Flash, V4-Pro
  kV4_0731,    // V4-Flash-0731, V4-Pro-0813: other effort texts
  kV4_1,       // V4.1-Flash: system marker, spaced DSML tags, numeric effort, images
};

std::string_view FormatName(Format format);             // "v4-preview", "v4-0731", "v4.1"
Result<Format> ParseFormatName(std::string_view name);  // kInvalidArgument lists the names

// What the files of a model say.
struct FormatFacts {
  bool has_system_token = false;    // the tokenizer knows <|System|> (fullwidth bars)
  bool has_dspark_config = false;   // config.json has a key dspark_*
  bool has_effort_prompts = false;  // an encoder file defines REASONING_EFFORT_PROMPTS
};
Format DetectFormat(const FormatFacts& facts);

// Reads tokenizer.json, config.json and encoding/*.py of `dir`; a missing file is a missing fact,
// so a directory with tokenizer.json alone is enough. Fails on an unreadable or malformed file.
Result<Format> DetectFormatOfDir(const std::string& dir);

// How the DSML tags of a generation are spelled after the token: "tool_calls" or " calls" and so
// on. V4.1 puts a space first. [chat.md 6]
struct DsmlTags {
  std::string_view block;
  std::string_view invoke;
  std::string_view parameter;
};
DsmlTags TagsOf(Format format);

}  // namespace cachalot::chat
