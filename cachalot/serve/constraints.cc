// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/constraints.h"

#include <algorithm>
#include <optional>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/chat/markers.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::serve {
namespace {

constexpr size_t kMaxKnown = 64;
// Of all that are kept, but the last used one: an answer of many lengths of many strings can make
// one large.
constexpr size_t kMaxKnownBytes = size_t{256} << 20;

// A grammar that begins at once, after a token, or after a text.
class Walker : public engine::TokenConstraint {
 public:
  struct Trigger {
    std::optional<uint32_t> token;    // begins after it
    std::string text;                 // or after this; both empty: at once
    std::vector<uint32_t> forbidden;  // until then: ends without the answer that was asked for
  };

  Walker(std::shared_ptr<grammar::Automaton> automaton, std::vector<uint32_t> end_tokens,
         Trigger trigger)
      : matcher_(std::move(automaton), std::move(end_tokens)),
        trigger_(std::move(trigger)),
        active_(!trigger_.token && trigger_.text.empty()) {}

  void ApplyMask(std::span<uint64_t> mask) override {
    if (active_) return matcher_.ApplyMask(mask);
    for (const uint32_t id : trigger_.forbidden) mask[id / 64] &= ~(uint64_t{1} << (id % 64));
  }

  void Accept(uint32_t token) override {
    if (active_) {
      matcher_.Accept(token);
    } else if (trigger_.token) {
      active_ = token == *trigger_.token;
    } else {
      seen_ += matcher_.TokenBytes(token);
      const size_t found = seen_.find(trigger_.text);
      if (found == std::string::npos) {
        seen_.erase(0, seen_.size() - std::min(seen_.size(), trigger_.text.size()));
        return;
      }
      // What the token holds beyond the opener must fit, or the block is beyond help.
      active_ = matcher_.AcceptBytes(std::string_view(seen_).substr(found + trigger_.text.size()));
    }
  }

 private:
  grammar::Matcher matcher_;
  Trigger trigger_;
  bool active_;
  std::string seen_;  // the end of the text so far
};

bool Forced(const api::GenerateRequest& request) {
  return request.tool_choice == api::ToolChoice::kRequired ||
         request.tool_choice == api::ToolChoice::kNamed;
}

std::string ParametersOf(const chat::JsonValue& tool) {
  const chat::JsonValue* parameters = tool.Find("parameters");
  return parameters != nullptr && parameters->IsObject() ? chat::DumpPythonJson(*parameters)
                                                         : std::string();
}

// Names and required parameters stay; of the types only what decides how a value is written.
std::string Relaxed(const std::string& parameters) {
  auto schema = ParseJson(parameters, "parameters");
  if (!schema.ok() || !schema->is_object()) return {};
  const auto properties = schema->find("properties");
  if (properties == schema->end() || !properties->is_object()) return {};
  Json out = {{"properties", Json::object()}};
  for (const auto& [name, property] : properties->items()) {
    const bool string = property.is_object() && property.value("type", Json()) == "string";
    out["properties"][name] = string ? Json{{"type", "string"}} : Json(true);
  }
  if (schema->contains("required") && (*schema)["required"].is_array()) {
    out["required"] = (*schema)["required"];
  }
  return out.dump();
}

Result<std::shared_ptr<const grammar::Grammar>> GrammarOf(const api::GenerateRequest& request) {
  using grammar::Grammar;
  switch (request.output) {
    case api::OutputFormat::kText:
    case api::OutputFormat::kJsonObject:
      break;
    case api::OutputFormat::kJsonSchema:
      return Grammar::FromJsonSchema(request.schema);
    case api::OutputFormat::kRegex:
      return Grammar::FromRegex(request.schema);
    case api::OutputFormat::kGrammar:
      return Grammar::FromGbnf(request.schema);
    case api::OutputFormat::kChoice: {
      CACHALOT_TRY(const Json list, ParseJson(request.schema, "choice"));
      return Grammar::FromChoice(list.get<std::vector<std::string>>());
    }
  }
  return Grammar::AnyJsonObject();
}

std::vector<uint32_t> MarkupTokens(const ServedModel& model) {
  const auto id = model.tokenizer->FindSpecial(chat::kDsml);
  return id ? std::vector<uint32_t>{*id} : std::vector<uint32_t>();
}

}  // namespace

Constraints::Constraints(const ServedModel& model)
    : model_(model),
      text_(grammar::Vocabulary::Create(*model.tokenizer, model.vocab_size, {})),
      calls_(grammar::Vocabulary::Create(*model.tokenizer, model.vocab_size, MarkupTokens(model))) {
}

std::shared_ptr<grammar::Automaton> Constraints::Find(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(known_, key, &Known::first);
  if (found == known_.end()) return nullptr;
  known_.splice(known_.begin(), known_, found);
  return found->second;
}

std::shared_ptr<grammar::Automaton> Constraints::Keep(
    std::string key, std::shared_ptr<const grammar::Grammar> grammar,
    const std::shared_ptr<const grammar::Vocabulary>& words) {
  auto automaton = std::make_shared<grammar::Automaton>(std::move(grammar), words);
  const std::lock_guard lock(mutex_);
  known_.emplace_front(std::move(key), automaton);
  size_t bytes = 0;
  for (const Known& known : known_) bytes += known.second->bytes();
  while (known_.size() > kMaxKnown || (bytes > kMaxKnownBytes && known_.size() > 1)) {
    bytes -= std::min(bytes, known_.back().second->bytes());
    known_.pop_back();
  }
  return automaton;
}

api::ApiResult<std::shared_ptr<grammar::Automaton>> Constraints::Compile(
    const api::GenerateRequest& request) {
  if (Forced(request)) return ForTools(request);
  if (request.output == api::OutputFormat::kText) {
    const bool strict =
        !request.strict.empty() && std::ranges::find(request.strict, false) == request.strict.end();
    if (strict) return ForTools(request);
    return std::shared_ptr<grammar::Automaton>();
  }
  const std::string key = StrCat(static_cast<int>(request.output), " ", request.schema);
  if (auto known = Find(key)) return known;
  auto compiled = GrammarOf(request);
  if (!compiled.ok()) {
    return api::InvalidRequest(request.format_field, compiled.error().message);
  }
  auto automaton = Keep(key, std::move(compiled).value(), text_);
  if (automaton->start() != grammar::Automaton::kDead) return automaton;
  return api::InvalidRequest(request.format_field,
                             "no text is so, or too many ways lead to the same text");
}

api::ApiResult<std::shared_ptr<grammar::Automaton>> Constraints::ForTools(
    const api::GenerateRequest& request) {
  const chat::DsmlTags tags = chat::TagsOf(model_.format);
  grammar::ToolGrammar tools{.tools = {},
                             .one_call = !request.parallel_tool_calls,
                             .dsml = std::string(chat::kDsml),
                             .block_tag = std::string(tags.block),
                             .invoke_tag = std::string(tags.invoke),
                             .parameter_tag = std::string(tags.parameter)};
  std::string key = tools.one_call ? "call" : "calls";
  for (size_t i = 0; i < request.tools.size(); ++i) {
    tools.tools.push_back({request.schemas[i].name, ParametersOf(request.tools[i])});
    key += StrCat(" ", tools.tools.back().name, " ", tools.tools.back().parameters);
  }
  if (auto known = Find(key)) return known;
  auto compiled = grammar::Grammar::FromTools(tools);
  if (!compiled.ok() && !request.strict_tools) {
    for (auto& tool : tools.tools) tool.parameters = Relaxed(tool.parameters);
    compiled = grammar::Grammar::FromTools(tools);
  }
  if (!compiled.ok()) return api::InvalidRequest("tools", compiled.error().message);
  return Keep(std::move(key), std::move(compiled).value(), calls_);
}

std::unique_ptr<engine::TokenConstraint> Constraints::Walk(
    std::shared_ptr<grammar::Automaton> automaton, const api::GenerateRequest& request,
    const Prompt& prompt) const {
  if (automaton == nullptr) return nullptr;
  Walker::Trigger trigger;
  if (request.output != api::OutputFormat::kText && !Forced(request)) {
    if (prompt.thinking && model_.think_close) {
      trigger.token = model_.think_close;
      trigger.forbidden = model_.stop_tokens;
    }
  } else if (prompt.open_block.empty()) {
    trigger.text = StrCat("<", chat::kDsml, chat::TagsOf(model_.format).block, ">\n");
  }
  const std::vector<uint32_t> end = {model_.stop_tokens.front()};
  return std::make_unique<Walker>(std::move(automaton), end, std::move(trigger));
}

}  // namespace cachalot::serve
