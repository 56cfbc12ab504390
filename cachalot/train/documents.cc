// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/documents.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "cachalot/base/json.h"
#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/chat/encode.h"
#include "cachalot/chat/markers.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::train {
namespace {

constexpr std::string_view kFimBegin = "<\uFF5Cfim\u2581begin\uFF5C>";
constexpr std::string_view kFimHole = "<\uFF5Cfim\u2581hole\uFF5C>";
constexpr std::string_view kFimEnd = "<\uFF5Cfim\u2581end\uFF5C>";

// JSON is parsed as a tree; a text file is tokenized in one go. Both live in memory.
constexpr uint64_t kMaxLineBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;

Error Bad(const std::string& name, const std::string& what) {
  return {ErrorCode::kInvalidArgument, StrCat(name, ": ", what)};
}

// A string field, moved into `out`.
Status TakeText(Json& json, const char* key, const std::string& name, std::string& out) {
  const auto field = json.find(key);
  if (field == json.end() || !field->is_string()) {
    return Bad(name, StrCat(key, field == json.end() ? " is missing" : " is no string"));
  }
  out = std::move(field->get_ref<std::string&>());
  return {};
}

Result<Document> ChatDocument(std::string_view line, const std::string& name) {
  const auto request = chat::RenderRequestFromJson(line, "the chat");
  if (!request.ok()) return Bad(name, request.error().message);
  const auto& messages = request->conversation.messages;
  if (messages.empty() || messages.back().role != chat::Role::kAssistant) {
    return Bad(name, StrCat("the last message is ",
                            messages.empty() ? "missing" : chat::RoleName(messages.back().role),
                            ", expected assistant: there is nothing to learn from"));
  }
  Document document{.kind = DocumentKind::kChat};
  auto rendered = chat::EncodePrompt(request->conversation, request->options);
  if (!rendered.ok()) return Bad(name, rendered.error().message);
  document.text = std::move(rendered).value();
  return document;
}

// The next place at or after `at` that does not split a UTF-8 character.
size_t CharacterStart(std::string_view text, size_t at) {
  while (at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0u) == 0x80) ++at;
  return at;
}

}  // namespace

Result<Document> DocumentFromJson(std::string_view line, const std::string& name) {
  auto parsed = ParseJson(line, name);
  if (!parsed.ok()) return Error{ErrorCode::kInvalidArgument, parsed.error().message};
  Json& json = *parsed;
  if (!json.is_object()) return Bad(name, "is no JSON object");
  if (json.contains("messages")) return ChatDocument(line, name);
  Document document;
  if (json.contains("middle")) {
    document.kind = DocumentKind::kFill;
    CACHALOT_RETURN_IF_ERROR(TakeText(json, "prefix", name, document.prefix));
    CACHALOT_RETURN_IF_ERROR(TakeText(json, "suffix", name, document.suffix));
    CACHALOT_RETURN_IF_ERROR(TakeText(json, "middle", name, document.text));
    return document;
  }
  if (!json.contains("text")) {
    return Bad(name, "has none of text, messages, or prefix with suffix and middle");
  }
  CACHALOT_RETURN_IF_ERROR(TakeText(json, "text", name, document.text));
  return document;
}

Status ForEachDocument(const std::string& path,
                       const std::function<Status(Document&&, uint64_t)>& take) {
  if (!path.ends_with(".jsonl")) {
    CACHALOT_TRY(std::string text, io::ReadFile(path, kMaxTextBytes));
    const uint64_t bytes = text.size();
    if (text.empty()) return Bad(path, "is empty");
    return take({.text = std::move(text)}, bytes);
  }
  CACHALOT_TRY(const io::MappedFile file, io::MappedFile::Open(path));
  const std::string_view all(reinterpret_cast<const char*>(file.data()), file.size());
  uint64_t number = 1;
  for (size_t at = 0; at < all.size(); ++number) {
    const size_t end = std::min(all.find('\n', at), all.size());
    const std::string_view line = all.substr(at, end - at);
    at = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string name = StrCat(path, ":", number);
    if (line.size() > kMaxLineBytes) {
      return Bad(name, StrCat("is ", line.size(), " bytes, at most ", kMaxLineBytes));
    }
    CACHALOT_TRY(Document document, DocumentFromJson(line, name));
    CACHALOT_RETURN_IF_ERROR(take(std::move(document), std::min(at, all.size())));
  }
  return {};
}

Result<SampleMaker> SampleMaker::Create(std::shared_ptr<const tokenizer::Tokenizer> tokenizer,
                                        const SampleOptions& options) {
  SampleMaker maker;
  maker.options_ = options;
  const auto find = [&](std::string_view marker, uint32_t& id) {
    const auto found = tokenizer->FindSpecial(marker);
    id = found.value_or(0);
    return found.has_value();
  };
  if (!find(chat::kBos, maker.bos_) || !find(chat::kEos, maker.eos_)) {
    return Error{ErrorCode::kInvalidArgument,
                 "the tokenizer has no begin- and end-of-sentence tokens; make one with cachalot "
                 "tokenizer train"};
  }
  maker.has_fill_ = find(kFimBegin, maker.fim_begin_) && find(kFimHole, maker.fim_hole_) &&
                    find(kFimEnd, maker.fim_end_);
  if (options.fill_rate > 0 && !maker.has_fill_) {
    return Error{ErrorCode::kInvalidArgument,
                 "the tokenizer has no fill-in-the-middle tokens; leave out --fill-rate"};
  }
  maker.has_chat_ = find(chat::kAssistantMarker, maker.assistant_) &&
                    find(chat::kThinkOpen, maker.think_) &&
                    find(chat::kThinkClose, maker.end_think_);
  maker.tokenizer_ = std::move(tokenizer);
  return maker;
}

void SampleMaker::Append(std::string_view text, Sample& sample) const {
  const std::vector<uint32_t> ids = tokenizer_->Encode(text, /*parse_special=*/false);
  sample.ids.insert(sample.ids.end(), ids.begin(), ids.end());
}

Result<Sample> SampleMaker::Make(const Document& document, uint64_t index) const {
  if (document.kind == DocumentKind::kChat) {
    if (has_chat_) return MakeChat(document.text);
    return Error{ErrorCode::kInvalidArgument, "the tokenizer has no chat tokens"};
  }
  if (document.kind == DocumentKind::kFill) {
    if (has_fill_) return MakeFill(document.prefix, document.suffix, document.text);
    return Error{ErrorCode::kInvalidArgument, "the tokenizer has no fill-in-the-middle tokens"};
  }
  const std::string_view text = document.text;
  const uint64_t key = CounterRandom(options_.seed, index, 0x66696c6c);
  if (UniformOpen(CounterRandom(key, 0, 0)) < options_.fill_rate) {
    const auto size = static_cast<double>(text.size());
    size_t a = static_cast<size_t>(UniformOpen(CounterRandom(key, 1, 0)) * size);
    size_t b = static_cast<size_t>(UniformOpen(CounterRandom(key, 2, 0)) * size);
    if (a > b) std::swap(a, b);
    a = CharacterStart(text, a);
    b = CharacterStart(text, b);
    return MakeFill(text.substr(0, a), text.substr(b), text.substr(a, b - a));
  }
  Sample sample{.ids = {bos_}};
  Append(text, sample);
  sample.ids.push_back(eos_);
  sample.is_target.assign(sample.ids.size(), 1);
  sample.is_target[0] = 0;
  return sample;
}

Sample SampleMaker::MakeFill(std::string_view prefix, std::string_view suffix,
                             std::string_view middle) const {
  Sample sample{.ids = {bos_, fim_begin_}};
  Append(prefix, sample);
  sample.ids.push_back(fim_hole_);
  Append(suffix, sample);
  sample.ids.push_back(fim_end_);
  Append(middle, sample);
  sample.ids.push_back(eos_);
  sample.is_target.assign(sample.ids.size(), 1);
  sample.is_target[0] = 0;
  return sample;
}

// An answer begins behind the assistant marker and the <think> or </think> that the prompt ends
// with, and ends with EOS.
Sample SampleMaker::MakeChat(std::string_view text) const {
  Sample sample{.ids = tokenizer_->Encode(text, /*parse_special=*/true)};
  sample.is_target.assign(sample.ids.size(), options_.learn_prompts ? 1 : 0);
  if (!sample.is_target.empty()) sample.is_target[0] = 0;
  if (options_.learn_prompts) return sample;
  bool answer = false;
  for (size_t i = 0; i < sample.ids.size(); ++i) {
    const uint32_t id = sample.ids[i];
    if (id == assistant_) {
      answer = true;
      const uint32_t next = i + 1 < sample.ids.size() ? sample.ids[i + 1] : 0;
      if (next == think_ || next == end_think_) ++i;
      continue;
    }
    if (answer) sample.is_target[i] = 1;
    if (id == eos_) answer = false;
  }
  return sample;
}

}  // namespace cachalot::train
