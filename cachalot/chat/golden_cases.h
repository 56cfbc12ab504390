// SPDX-License-Identifier: Apache-2.0
// Test data: the cases under tests/golden/encoding, and those of other people beside the
// repository; and the seed of the property tests.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "cachalot/chat/json_value.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::chat {

// rapidcheck draws its seed from the clock unless told otherwise before its first use.
inline const int kRapidcheckSeeded = setenv("RC_PARAMS", "seed=20260424", /*overwrite=*/0);

inline std::string ReadTestFile(const std::string& path) {
  Result<std::string> text = io::ReadFile(path, uint64_t{1} << 24);
  EXPECT_TRUE(text.ok()) << (text.ok() ? "" : text.error().message);
  return text.ok() ? *text : std::string();
}

// Cases of the repository itself: a missing file fails the test.
inline std::vector<JsonValue> GoldenCases(const std::string& file) {
  const std::string path = CACHALOT_SOURCE_DIR "/tests/golden/encoding/" + file;
  Result<JsonValue> json = ParseJsonValue(ReadTestFile(path), path);
  EXPECT_TRUE(json.ok() && json->IsArray() && !json->items.empty()) << path;
  return json.ok() ? json->items : std::vector<JsonValue>();
}

// Folder of the official cases, "" (after a loud line) where they are not present.
inline std::string OfficialFolder() {
  const std::string folder = CACHALOT_SOURCE_DIR "/../shared/golden/encoding/official/";
  if (std::filesystem::exists(folder)) return folder;
  std::cerr << "SKIPPED: no " << folder << "; the official encoding cases are NOT tested\n";
  return "";
}

// The string field `key`, "" if there is none.
inline std::string TextOf(const JsonValue& json, std::string_view key) {
  const JsonValue* value = json.Find(key);
  return value != nullptr && value->IsString() ? value->text : std::string();
}

}  // namespace cachalot::chat
