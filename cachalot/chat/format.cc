// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/format.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/chat/markers.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::chat {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 3> kNames = {"v4-preview", "v4-0731", "v4.1"};
constexpr uint64_t kMaxTokenizerBytes = 256 << 20;
constexpr uint64_t kMaxFileBytes = 16 << 20;

// Empty if the file is not there.
Result<std::string> ReadOptional(const fs::path& path, uint64_t max_bytes) {
  std::error_code ec;
  if (!fs::exists(path, ec)) return std::string();
  return io::ReadFile(path.string(), max_bytes);
}

// The byte-level alphabet cannot spell U+FF5C (its bytes have other stand-ins), so wherever the
// marker stands in tokenizer.json it is an added token. Searching the text spares a parse of 6 MB
// at every start.
Result<bool> HasSystemToken(const fs::path& dir) {
  CACHALOT_TRY(const std::string text, ReadOptional(dir / "tokenizer.json", kMaxTokenizerBytes));
  return text.find(kSystemMarker) != std::string::npos ||
         text.find("<\\uff5cSystem\\uff5c>") != std::string::npos ||
         text.find("<\\uFF5CSystem\\uFF5C>") != std::string::npos;
}

Result<bool> HasDsparkKey(const fs::path& dir) {
  const fs::path path = dir / "config.json";
  CACHALOT_TRY(const std::string text, ReadOptional(path, kMaxFileBytes));
  if (text.empty()) return false;
  CACHALOT_TRY(const Json config, ParseJson(text, path.string()));
  if (!config.is_object()) return false;
  return std::any_of(config.items().begin(), config.items().end(),
                     [](const auto& item) { return item.key().starts_with("dspark_"); });
}

Result<bool> HasEffortPrompts(const fs::path& dir) {
  std::error_code ec;
  for (fs::directory_iterator it(dir / "encoding", ec), end; !ec && it != end; it.increment(ec)) {
    if (it->path().extension() != ".py") continue;
    CACHALOT_TRY(const std::string text, io::ReadFile(it->path().string(), kMaxFileBytes));
    if (text.find("REASONING_EFFORT_PROMPTS") != std::string::npos) return true;
  }
  return false;
}

}  // namespace

std::string_view FormatName(Format format) { return kNames[static_cast<size_t>(format)]; }

Result<Format> ParseFormatName(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Format>(i);
  }
  return Error{ErrorCode::kInvalidArgument,
               StrCat("format '", name, "': expected v4-preview, v4-0731 or v4.1")};
}

Format DetectFormat(const FormatFacts& facts) {
  if (facts.has_system_token) return Format::kV4_1;
  if (facts.has_dspark_config || facts.has_effort_prompts) return Format::kV4_0731;
  return Format::kV4Preview;
}

Result<Format> DetectFormatOfDir(const std::string& dir) {
  FormatFacts facts;
  CACHALOT_TRY(facts.has_system_token, HasSystemToken(dir));
  CACHALOT_TRY(facts.has_dspark_config, HasDsparkKey(dir));
  CACHALOT_TRY(facts.has_effort_prompts, HasEffortPrompts(dir));
  return DetectFormat(facts);
}

DsmlTags TagsOf(Format format) {
  if (format == Format::kV4_1) return {" calls", " invoke", " parameter"};
  return {"tool_calls", "invoke", "parameter"};
}

}  // namespace cachalot::chat
