// SPDX-License-Identifier: Apache-2.0
// Tokenizers for the tests: small ones written out, and the real ones where they are present.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cachalot/base/json.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/tokenizer/byte_alphabet.h"
#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot::tokenizer {

// rapidcheck takes its seed from the environment: fixed, unless the caller sets one.
inline const int kRapidcheckSeeded = setenv("RC_PARAMS", "seed=20260424", /*overwrite=*/0);

inline std::string SharedPath(const std::string& path) {
  return std::string(CACHALOT_SOURCE_DIR "/../shared/") + path;
}

// A tokenizer.json with the 256 bytes as ids 0..255 and `merges` ("a b") as ids from 256 on.
inline Json SmallTokenizerJson(const std::vector<std::string>& merges) {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[ByteSymbol(static_cast<uint8_t>(byte))] = byte;
  Json list = Json::array();
  for (const std::string& merge : merges) {
    const size_t space = merge.find(' ');
    vocab[merge.substr(0, space) + merge.substr(space + 1)] = vocab.size();
    list.push_back(merge);
  }
  return {
      {"added_tokens", Json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", list}}}};
}

inline Result<std::shared_ptr<const Tokenizer>> FromJson(const Json& json) {
  return Tokenizer::FromJson(json.dump(), "test.json");
}

// The V3 base of the real DeepSeek tokenizer (tools/fetch_deepseek_tokenizer.sh); empty if absent.
inline std::string DeepSeekTokenizerPath() {
  const char* env = std::getenv("CACHALOT_DEEPSEEK_TOKENIZER");
  const std::string path =
      env != nullptr ? env : CACHALOT_SOURCE_DIR "/build/third_party/deepseek_v3/tokenizer.json";
  return std::filesystem::exists(path) ? path : std::string();
}

// V4 = the V3 base with V4's table of added tokens. [chat.md 2.4]
inline std::string MakeV4Json(const std::string& v3, const std::string& added_table) {
  auto json = SortedJson::parse(v3);
  auto added = SortedJson::parse(added_table);
  json["added_tokens"] = added;
  return json.dump();
}

}  // namespace cachalot::tokenizer
