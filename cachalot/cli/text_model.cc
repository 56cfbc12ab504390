// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/text_model.h"

#include <algorithm>
#include <filesystem>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/progress.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::cli {
namespace {

// U+FF5C and U+2581 of the markers. [chat.md 2.3]
#define CACHALOT_BAR "\xEF\xBD\x9C"
#define CACHALOT_LOW "\xE2\x96\x81"
constexpr std::string_view kBos =
    "<" CACHALOT_BAR "begin" CACHALOT_LOW "of" CACHALOT_LOW "sentence" CACHALOT_BAR ">";
constexpr std::string_view kUser = "<" CACHALOT_BAR "User" CACHALOT_BAR ">";
constexpr std::string_view kAssistant = "<" CACHALOT_BAR "Assistant" CACHALOT_BAR ">";
#undef CACHALOT_BAR
#undef CACHALOT_LOW

constexpr uint64_t kMaxConfigBytes = 1 << 20;

// tokenizer_config.json's add_bos_token; true without the file or the field.
Result<bool> AddsBos(const std::string& dir) {
  const std::string path = (std::filesystem::path(dir) / "tokenizer_config.json").string();
  std::error_code ec;
  if (!std::filesystem::exists(path, ec)) return true;
  CACHALOT_TRY(const std::string text, io::ReadFile(path, kMaxConfigBytes));
  CACHALOT_TRY(const Json json, ParseJson(text, path));
  const auto field = json.is_object() ? json.find("add_bos_token") : json.end();
  return !json.is_object() || field == json.end() || !field->is_boolean() || field->get<bool>();
}

std::optional<uint32_t> SpecialId(const TextModel& model, std::string_view content) {
  const std::optional<uint32_t> id = model.tokenizer->FindSpecial(content);
  if (id.has_value() && *id >= model.weights->config.vocab_size) return std::nullopt;
  return id;
}

void FindMarkers(TextModel& model) {
  const auto user = SpecialId(model, kUser);
  const auto assistant = SpecialId(model, kAssistant);
  model.has_chat_tokens = user.has_value() && assistant.has_value();
  std::error_code ec;
  model.is_chat_model =
      model.has_chat_tokens &&
      std::filesystem::exists(std::filesystem::path(model.dir) / "generation_config.json", ec);
  model.stop_tokens = {model.weights->config.eos_token_id};
  for (const auto id : {SpecialId(model, kBos), user, assistant}) {
    if (id.has_value() && *id != model.stop_tokens[0]) model.stop_tokens.push_back(*id);
  }
}

}  // namespace

Result<std::vector<uint32_t>> TextModel::Encode(std::string_view text) const {
  std::vector<uint32_t> ids = tokenizer->Encode(text, /*parse_special=*/true);
  const uint32_t vocab_size = weights->config.vocab_size;
  for (const uint32_t id : ids) {
    if (id < vocab_size) continue;
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(dir, "/tokenizer.json: token id ", id, ", but config.json has vocab_size ",
                        vocab_size, "; the two files belong to different models")};
  }
  return ids;
}

Result<TextModel> OpenTextModel(const EngineFlags& flags, const LoadUse& use) {
  TextModel model;
  CACHALOT_TRY(model.dir, ResolveModel(flags.model));
  CACHALOT_TRY(model.weights, LoadModelWeights(flags, model.dir, use));
  const BusyIndicator busy(StrCat("opening ", model.dir));
  CACHALOT_TRY(auto loaded, tokenizer::Tokenizer::Load(model.dir));
  model.tokenizer = std::move(loaded);
  FindMarkers(model);
  CACHALOT_TRY(const bool adds_bos, AddsBos(model.dir));
  if (adds_bos) model.plain_prefix = SpecialId(model, kBos);
  return model;
}

}  // namespace cachalot::cli
