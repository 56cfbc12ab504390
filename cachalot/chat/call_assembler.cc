// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/call_assembler.h"

#include <algorithm>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::chat {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// Without the first line (```json) and the closing fence, if there is a fence.
std::string_view Unfenced(std::string_view text) {
  constexpr std::string_view kFence = "```";
  text = Trimmed(text);
  if (!text.starts_with(kFence)) return text;
  const size_t line = text.find('\n');
  const size_t brace = std::min(text.find('{'), text.size());
  text.remove_prefix(std::min(line, brace));
  if (text.ends_with(kFence)) text.remove_suffix(kFence.size());
  return Trimmed(text);
}

}  // namespace

bool CallAssembler::MayBeWrapper(const std::string& key) const {
  return num_parameters_ == 0 && tool_ != nullptr && (key == "arguments" || key == "input") &&
         !tool_->properties.empty() && !tool_->HasProperty(key);
}

CallAssembler::Mode CallAssembler::ModeFor(const std::string& key, StringFlag flag) const {
  if (MayBeWrapper(key)) return Mode::kWrapper;
  const ParameterTypes types = tool_ != nullptr ? tool_->TypesOf(key) : ParameterTypes{};
  if (types.OnlyString()) return Mode::kStream;
  if (flag != StringFlag::kTrue) return Mode::kJson;
  return types.AdmitsOther() && !types.string ? Mode::kTyped : Mode::kStream;
}

void CallAssembler::BeginParameter(const std::string& key, StringFlag flag) {
  if (wrapper_held_) FlushWrapper();
  mode_ = ModeFor(key, flag);
  key_ = key;
  flag_ = flag;
  value_.clear();
  if (mode_ == Mode::kWrapper) return;
  WritePrefix();
  if (mode_ == Mode::kStream) sink_("\"");
}

void CallAssembler::WritePrefix() {
  sink_(StrCat(num_parameters_ == 0 ? "{" : ", ", JsonString(key_), ": "));
  ++num_parameters_;
}

void CallAssembler::Value(std::string_view bytes) {
  const std::string text = filter_.Push(bytes);
  if (mode_ != Mode::kStream) {
    value_ += text;
    return;
  }
  std::string escaped;
  AppendJsonEscaped(text, escaped);
  if (!escaped.empty()) sink_(escaped);
}

void CallAssembler::EndParameter() {
  const std::string rest = filter_.Finish();
  if (mode_ == Mode::kStream) {
    sink_(StrCat(rest, "\""));  // a part of the token: nothing in it needs escaping
  } else {
    value_ += rest;
    if (mode_ == Mode::kWrapper) {
      wrapper_held_ = true;
    } else {
      WriteValue();
    }
  }
  mode_ = Mode::kNone;
}

// A value that is no JSON is passed as a string; one written as a string is read as JSON only
// where the schema admits that and no string, so nothing is lost. [chat.md 8.3, rule 5]
void CallAssembler::WriteValue() {
  const Result<JsonValue> json = ParseJsonValue(value_, "value");
  const bool as_string = flag_ == StringFlag::kTrue;
  bool verbatim = json.ok() && !as_string;
  if (json.ok() && as_string && tool_ != nullptr) verbatim = tool_->TypesOf(key_).Admits(*json);
  sink_(verbatim ? value_ : JsonString(value_));
}

void CallAssembler::FlushWrapper() {
  wrapper_held_ = false;
  WritePrefix();
  WriteValue();
}

// The object inside a spurious wrapper, if all its keys are the tool's. [chat.md 8.3, rule 6]
std::optional<std::string> CallAssembler::Unwrapped() const {
  const Result<JsonValue> json = ParseJsonValue(value_, "value");
  if (!json.ok() || !json->IsObject()) return std::nullopt;
  const bool all_known = std::all_of(json->keys.begin(), json->keys.end(),
                                     [this](const auto& key) { return tool_->HasProperty(key); });
  if (!all_known) return std::nullopt;
  return std::string(Trimmed(value_));
}

void CallAssembler::Body(std::string_view text) {
  body_ = filter_.Push(text);
  body_ += filter_.Finish();
  body_ = std::string(Unfenced(body_));
}

void CallAssembler::Close() {
  if (wrapper_held_) {
    if (const std::optional<std::string> object = Unwrapped(); object.has_value()) {
      sink_(*object);
      return;
    }
    FlushWrapper();
  }
  if (num_parameters_ > 0) {
    sink_("}");
    return;
  }
  const Result<JsonValue> json = ParseJsonValue(body_, "arguments");
  sink_(json.ok() && json->IsObject() ? std::string_view(body_) : "{}");
}

void CallAssembler::Truncate() {
  if (wrapper_held_) FlushWrapper();
  if (num_parameters_ == 0 && mode_ == Mode::kNone && body_.starts_with('{')) sink_(body_);
  if (mode_ == Mode::kNone || mode_ == Mode::kStream) return;
  if (mode_ == Mode::kWrapper) WritePrefix();
  if (flag_ != StringFlag::kTrue) {
    sink_(value_);
    return;
  }
  std::string escaped = "\"";
  AppendJsonEscaped(value_, escaped);
  sink_(escaped);
}

}  // namespace cachalot::chat
