// SPDX-License-Identifier: Apache-2.0
// cachalot chat: a conversation in the terminal.
#include <fmt/format.h>

#include <memory>
#include <optional>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/answer_stream.h"
#include "cachalot/cli/cache_flags.h"
#include "cachalot/cli/chat_input.h"
#include "cachalot/cli/chat_turn.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/generate.h"
#include "cachalot/cli/line_editor.h"
#include "cachalot/cli/terminal.h"
#include "cachalot/cli/text_model.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::cli {
namespace {

// A prose model has no end of its turn.
constexpr uint32_t kProseTokens = 200;
constexpr uint64_t kMaxFileBytes = uint64_t{64} << 20;

struct ChatFlags {
  EngineFlags engine;
  CacheFlags cache;
  SamplingFlags sampling;
  bool resume = false;
  std::string think = "off";
  std::string system;
  bool plain = false;
  bool stats = false;
};

class Chat {
 public:
  Chat(const ChatFlags& flags, TextModel model, std::unique_ptr<engine::Engine> engine)
      : flags_(flags),
        model_(std::move(model)),
        engine_(std::move(engine)),
        prose_(flags.plain || !model_.is_chat_model),
        interactive_(StdinIsTerminal()),
        style_(StyleFor(UseColor(StdoutIsTerminal()))) {
    conversation_.think = flags.think;
    SetSystem(flags.system);
  }

  Status Loop();
  // Goes on with the conversation that `path` holds.
  Status Resume(const std::string& path);
  // Writes the conversation there after each answer.
  void KeepAt(std::string path) { kept_at_ = std::move(path); }

 private:
  enum class Next : uint8_t { kContinue, kQuit };

  void Greet() const;
  // One whole input, nothing at the end of input or on the second Ctrl-C.
  std::optional<std::string> ReadInputText();
  bool HandleInterrupt(bool had_text);
  Result<Next> Handle(const std::string& text);
  Result<Next> Execute(const ChatCommand& command);
  void SetSystem(const std::string& text);
  void Clear();
  Status Load(const std::string& path);
  Status Regenerate();
  Status Send(std::string text);
  Status Answer();
  Result<std::vector<uint32_t>> PromptIds();
  void Remember(const Generation& generation, const AnswerStream& answer);
  Status Keep() const;
  void PrintStats() const;
  // What the program says, as opposed to the model.
  void Note(const std::string& text) const {
    if (interactive_) fmt::print("{}{}{}\n", style_.dim, text, style_.reset);
  }

  const ChatFlags& flags_;
  TextModel model_;
  std::unique_ptr<engine::Engine> engine_;
  bool prose_;
  bool interactive_;
  Style style_;
  LineEditor editor_;
  bool interrupted_at_prompt_ = false;

  Conversation conversation_;
  std::vector<uint32_t> seen_ids_;  // prompt and answer so far, as fed and sampled
  std::string seen_text_;           // their text
  std::optional<Generation> last_;
  std::string kept_at_;
};

void Chat::Greet() const {
  const model::Config& config = model_.weights->config;
  Note(StrCat(model_.dir, ": ", config.num_hidden_layers, " layers, context ",
              engine_->max_context(), " tokens, ", engine_->num_threads(), " threads, ",
              kernels::TargetName(engine_->target()), ". /help lists commands."));
  if (!prose_ || flags_.plain) return;
  // Also without a terminal: who pipes questions into a prose model should learn why.
  fmt::print(stderr,
             "note: this model completes prose; it was not trained to chat. It continues what you "
             "write.\n");
}

bool Chat::HandleInterrupt(bool had_text) {
  ClearInterrupt();
  fmt::print("\n");
  if (!had_text && interrupted_at_prompt_) return false;
  interrupted_at_prompt_ = !had_text;
  if (!had_text) Note("Ctrl-C again, Ctrl-D or /quit leaves.");
  return true;
}

std::optional<std::string> Chat::ReadInputText() {
  InputAssembler input;
  for (;;) {
    std::string line;
    const LineStatus status = editor_.Read(input.pending() ? ". " : "> ", line);
    if (status == LineStatus::kInterrupted) {
      if (!HandleInterrupt(!line.empty() || input.pending())) return std::nullopt;
      input.Flush();
      continue;
    }
    if (status == LineStatus::kEnd) {
      std::string rest = input.Flush();
      return rest.empty() ? std::nullopt : std::optional(std::move(rest));
    }
    interrupted_at_prompt_ = false;
    editor_.AddHistory(line);
    if (auto text = input.Push(line)) return text;
  }
}

Status Chat::Loop() {
  Greet();
  while (auto text = ReadInputText()) {
    if (text->find_first_not_of(" \t\r\n") == std::string::npos) continue;
    const Result<Next> next = Handle(*text);
    ClearInterrupt();
    if (!next.ok()) {
      // A person reads the line and goes on; a script must see the failure.
      if (!interactive_) return next.error();
      Report(next.error());
    } else if (*next == Next::kQuit) {
      break;
    }
  }
  if (interactive_) PrintStats();
  return {};
}

Result<Chat::Next> Chat::Handle(const std::string& text) {
  if (IsChatCommand(text)) {
    CACHALOT_TRY(const ChatCommand command, ParseChatCommand(text));
    return Execute(command);
  }
  CACHALOT_RETURN_IF_ERROR(Send(text));
  return Next::kContinue;
}

Result<Chat::Next> Chat::Execute(const ChatCommand& command) {
  switch (command.kind) {
    case ChatCommandKind::kHelp:
      fmt::print("{}", ChatHelp());
      break;
    case ChatCommandKind::kThink:
      conversation_.think = command.argument;
      Note(prose_ ? "This model does not think." : StrCat("Thinking: ", command.argument));
      break;
    case ChatCommandKind::kSystem:
      if (!command.argument.empty()) {
        Clear();
        SetSystem(command.argument);
      }
      Note(StrCat("System: ",
                  conversation_.messages.empty() ? "(none)" : conversation_.messages[0].content));
      break;
    case ChatCommandKind::kRead: {
      CACHALOT_TRY(std::string text, io::ReadFile(command.argument, kMaxFileBytes));
      Note(StrCat("Read ", command.argument, ": ", text.size(), " bytes"));
      CACHALOT_RETURN_IF_ERROR(Send(std::move(text)));
      break;
    }
    case ChatCommandKind::kSave:
      CACHALOT_RETURN_IF_ERROR(
          io::WriteFileAtomic(command.argument, ConversationToJson(conversation_)));
      Note(StrCat("Saved ", conversation_.messages.size(), " messages to ", command.argument));
      break;
    case ChatCommandKind::kLoad:
      CACHALOT_RETURN_IF_ERROR(Load(command.argument));
      break;
    case ChatCommandKind::kClear:
      Clear();
      Note("Forgotten.");
      break;
    case ChatCommandKind::kStats:
      PrintStats();
      break;
    case ChatCommandKind::kRegen:
      CACHALOT_RETURN_IF_ERROR(Regenerate());
      break;
    case ChatCommandKind::kQuit:
      return Next::kQuit;
  }
  return Next::kContinue;
}

void Chat::SetSystem(const std::string& text) {
  if (!text.empty()) conversation_.messages = {{"system", text, ""}};
}

// The system message stays: it is a setting, not something said.
void Chat::Clear() {
  auto& messages = conversation_.messages;
  messages.resize(!messages.empty() && messages[0].role == "system" ? 1 : 0);
  seen_ids_.clear();
  seen_text_.clear();
}

Status Chat::Load(const std::string& path) {
  CACHALOT_TRY(const std::string text, io::ReadFile(path, kMaxFileBytes));
  CACHALOT_TRY(Conversation loaded, ConversationFromJson(text, path));
  conversation_ = std::move(loaded);
  seen_ids_.clear();
  seen_text_.clear();
  Note(StrCat("Loaded ", conversation_.messages.size(), " messages from ", path));
  return {};
}

Status Chat::Regenerate() {
  auto& messages = conversation_.messages;
  if (!messages.empty() && messages.back().role == "assistant") messages.pop_back();
  if (messages.empty() || messages.back().role != "user") {
    return Error{ErrorCode::kInvalidArgument, "/regen: there is no message to answer yet"};
  }
  seen_ids_.clear();
  seen_text_.clear();
  return Answer();
}

Status Chat::Send(std::string text) {
  conversation_.messages.push_back({"user", std::move(text), ""});
  const Status status = Answer();
  // A message that could not be answered (too long, say) must not spoil the next one.
  if (!status.ok()) conversation_.messages.pop_back();
  return status;
}

// Ids that were sampled are kept as they are: encoding their text again may cut it differently and
// would miss the remembered prefix. The rest starts at a marker, where a cut is safe. [chat.md 2.5]
Result<std::vector<uint32_t>> Chat::PromptIds() {
  std::string text;
  if (prose_) {
    for (const ConversationMessage& m : conversation_.messages) text += m.content;
  } else {
    CACHALOT_TRY(text, RenderConversation(conversation_, model_.dir));
  }
  std::vector<uint32_t> ids;
  if (!seen_text_.empty() && text.starts_with(seen_text_)) {
    ids = seen_ids_;
    CACHALOT_TRY(const auto rest, model_.Encode(std::string_view(text).substr(seen_text_.size())));
    ids.insert(ids.end(), rest.begin(), rest.end());
  } else {
    CACHALOT_TRY(ids, model_.Encode(text));
    if (prose_ && model_.plain_prefix) ids.insert(ids.begin(), *model_.plain_prefix);
  }
  seen_text_ = std::move(text);
  return ids;
}

Status Chat::Answer() {
  engine::Request request;
  CACHALOT_TRY(request.prompt, PromptIds());
  CACHALOT_TRY(request.sampling, flags_.sampling.Params(model_.weights->config.vocab_size));
  request.max_new_tokens = flags_.sampling.max_tokens.value_or(prose_ ? kProseTokens : 0);
  if (!flags_.sampling.ignore_eos) request.stop_tokens = model_.stop_tokens;
  request.cache = kvcache::CacheScope{};
  seen_ids_ = request.prompt;
  AnswerStream answer(*model_.tokenizer, {.thinking = !prose_ && conversation_.think != "off",
                                          .quiet = false,
                                          .stops = flags_.sampling.stops});
  auto generation =
      Generate(*engine_, std::move(request), [&](uint32_t id) { return answer.Push(id); });
  if (!generation.ok()) {
    seen_ids_.clear();
    seen_text_.clear();
    return generation.error();
  }
  answer.Finish();
  fmt::print("\n");
  if (interactive_) fmt::print("\n");
  Remember(*generation, answer);
  return Keep();
}

// The ids too: they are what the cache knows the conversation by.
Status Chat::Keep() const {
  if (kept_at_.empty()) return {};
  CACHALOT_TRY(const Json conversation, ParseJson(ConversationToJson(conversation_), kept_at_));
  const Json json = {
      {"conversation", conversation}, {"seen_ids", seen_ids_}, {"seen_text", seen_text_}};
  return io::WriteFileAtomic(kept_at_, json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

Status Chat::Resume(const std::string& path) {
  CACHALOT_TRY(const std::string text, io::ReadFile(path, kMaxFileBytes));
  CACHALOT_TRY(const Json json, ParseJson(text, path));
  const auto invalid = [&path] {
    return Error{ErrorCode::kDataCorruption, StrCat(path, ": not a conversation that was kept")};
  };
  if (!json.is_object() || !json.contains("conversation") || !json.contains("seen_ids") ||
      !json.contains("seen_text") || !json["seen_ids"].is_array() ||
      !json["seen_text"].is_string()) {
    return invalid();
  }
  CACHALOT_TRY(conversation_, ConversationFromJson(json["conversation"].dump(), path));
  seen_ids_.clear();
  for (const Json& id : json["seen_ids"]) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= model_.weights->config.vocab_size) {
      return invalid();
    }
    seen_ids_.push_back(id.get<uint32_t>());
  }
  seen_text_ = json["seen_text"].get<std::string>();
  Note(StrCat("Going on after ", conversation_.messages.size(), " messages."));
  return {};
}

void Chat::Remember(const Generation& generation, const AnswerStream& answer) {
  last_ = generation;
  seen_ids_.insert(seen_ids_.end(), generation.tokens.begin(), generation.tokens.end());
  for (const uint32_t id : generation.tokens) seen_text_ += model_.tokenizer->TokenBytes(id);
  conversation_.messages.push_back({"assistant", answer.content(), answer.reasoning()});
  if (generation.finish == engine::FinishReason::kCancelled) Note("(stopped)");
  if (seen_ids_.size() >= engine_->max_context()) {
    Note("(the context is full: /clear, or start again with a larger --max-context)");
  }
  if (flags_.stats) PrintStats();
}

void Chat::PrintStats() const {
  if (!last_.has_value()) return;
  fmt::print(stderr, "[{}]\n", FormatStats(*last_, engine_->max_context()));
}

Status RunChat(const ChatFlags& flags) {
  InstallInterruptHandler();
  CACHALOT_TRY(TextModel model, OpenTextModel(flags.engine));
  CACHALOT_TRY(const auto params, flags.sampling.Params(model.weights->config.vocab_size));
  static_cast<void>(params);  // checked once here, so that a bad flag is no error in mid-talk
  engine::EngineOptions options = flags.engine.ToEngineOptions(*model.weights);
  CACHALOT_TRY(options.disk, flags.cache.Open({}));
  CACHALOT_TRY(auto engine, engine::Engine::Create(model.weights, options));
  options.disk.store.reset();  // the engine's now: what is queued is written when it ends
  const auto weights = model.weights;
  Chat chat(flags, std::move(model), std::move(engine));
  if (flags.cache.wanted()) {
    CACHALOT_TRY(const std::string dir, flags.cache.Directory());
    const std::string path = dir + "/conversation.json";
    if (flags.resume) CACHALOT_RETURN_IF_ERROR(chat.Resume(path));
    chat.KeepAt(path);
  }
  const Status talked = chat.Loop();
  CACHALOT_RETURN_IF_ERROR(SaveExperience(flags.engine, *weights));
  return talked;
}

}  // namespace

void RegisterChat(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = app.add_subcommand("chat", "Talk to a model in the terminal");
  AddEngineFlags(*command, flags->engine, true);
  AddSamplingFlags(*command, flags->sampling);
  AddRunCacheFlags(*command, flags->cache);
  command->add_flag("--resume", flags->resume, "With --cache: go on with the last conversation")
      ->needs(flags->cache.option);
  command->add_option("--think", flags->think, "off (default), low, high or max")
      ->check(CLI::IsMember({"off", "low", "high", "max"}));
  command->add_option("--system", flags->system, "System message");
  command->add_flag("--plain", flags->plain, "Continue the text instead of using chat markers");
  command->add_flag("--stats", flags->stats, "Speed and context use after each answer");
  SetExamples(*command,
              "cachalot chat\n"
              "cachalot chat -m DIR --think high --system \"You are brief.\"\n"
              "cachalot chat -m DIR --cache --resume\n"
              "printf 'Hello\\n/save talk.json\\n' | cachalot chat -m DIR");
  command->callback([flags, &exit_code] {
    const Status status = RunChat(*flags);
    if (!status.ok()) exit_code = Report(status.error());
  });
}

}  // namespace cachalot::cli
