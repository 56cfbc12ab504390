// SPDX-License-Identifier: Apache-2.0
#include "cachalot/stream/profile.h"

#include <vector>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::stream {
namespace {

constexpr const char* kFormat = "cachalot-expert-profile";
constexpr int kVersion = 1;
constexpr uint64_t kMaxBytes = uint64_t{16} << 20;  // Pro: 61 x 384 counts, 0.4 MB

Error Bad(const std::string& path, const std::string& what, ErrorCode code) {
  return {code, StrCat(path, ": ", what, "; remove it or give another --expert-profile")};
}

// Empty without a file.
Result<std::vector<uint64_t>> ReadUses(const std::string& path, const ExpertCache& cache) {
  const auto text = io::ReadFile(path, kMaxBytes);
  if (!text.ok() && text.error().code == ErrorCode::kNotFound) return std::vector<uint64_t>();
  if (!text.ok()) return text.error();
  return ParseProfile(*text, path, cache.num_layers(), cache.num_experts());
}

}  // namespace

Result<std::vector<uint64_t>> ParseProfile(std::string_view text, const std::string& path,
                                           uint32_t num_layers, uint32_t num_experts) {
  CACHALOT_TRY(const Json json, ParseJson(text, path));
  if (!json.is_object() || json.value("format", Json()) != Json(kFormat) ||
      json.value("version", Json()) != Json(kVersion) || !json.contains("uses") ||
      !json["uses"].is_array()) {
    return Bad(path, "is no expert profile of version 1", ErrorCode::kDataCorruption);
  }
  const Json& layers = json["uses"];
  if (layers.size() != num_layers) {
    return Bad(path, StrCat("has ", layers.size(), " layers, the model ", num_layers),
               ErrorCode::kInvalidArgument);
  }
  std::vector<uint64_t> uses;
  for (const Json& layer : layers) {
    if (!layer.is_array() || layer.size() != num_experts) {
      return Bad(path, StrCat("a layer has not the model's ", num_experts, " experts"),
                 ErrorCode::kInvalidArgument);
    }
    for (const Json& count : layer) {
      // Bounded, so that no sum of them overflows.
      if (!count.is_number_unsigned() || count.get<uint64_t>() > (uint64_t{1} << 48)) {
        return Bad(path, "a count is no number of uses", ErrorCode::kDataCorruption);
      }
      uses.push_back(count.get<uint64_t>());
    }
  }
  return uses;
}

Status LoadProfile(const std::string& path, ExpertCache& cache) {
  CACHALOT_TRY(const std::vector<uint64_t> uses, ReadUses(path, cache));
  if (uses.empty()) return {};
  return cache.Learn(uses);
}

Status SaveProfile(const std::string& path, const ExpertCache& cache) {
  const auto before = ReadUses(path, cache);
  Json layers = Json::array();
  for (uint32_t l = 0; l < cache.num_layers(); ++l) {
    Json layer = Json::array();
    for (uint32_t e = 0; e < cache.num_experts(); ++e) {
      const size_t key = size_t{l} * cache.num_experts() + e;
      layer.push_back(cache.uses()[key] +
                      (before.ok() && !before->empty() ? (*before)[key] / 2 : 0));
    }
    layers.push_back(std::move(layer));
  }
  const Json json = {{"format", kFormat}, {"version", kVersion}, {"uses", std::move(layers)}};
  return io::WriteFileAtomic(path, json.dump() + "\n");
}

}  // namespace cachalot::stream
