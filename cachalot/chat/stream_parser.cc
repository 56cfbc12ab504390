// SPDX-License-Identifier: Apache-2.0
// Why the result cannot depend on the cuts: each step looks at the unread bytes and either decides
// something that any continuation would leave as it is, or waits. Only Finish() turns "may still
// become a marker" into a decision.
#include "cachalot/chat/stream_parser.h"

#include <algorithm>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/chat/call_assembler.h"
#include "cachalot/chat/dsml_patterns.h"
#include "cachalot/chat/markers.h"
#include "cachalot/chat/stop_matcher.h"
#include "cachalot/chat/token_filter.h"

namespace cachalot::chat {
namespace {

// Names, keys and flags longer than this are no tags of the protocol.
constexpr size_t kMaxNameBytes = 1024;

enum class State : uint8_t {
  kReasoning,
  kContent,
  kRecover,   // after an invoke outside of a block, until it is closed
  kBlock,     // between calls
  kName,      // invoke name="HERE
  kBareName,  // <..toolcall>HERE
  kTagEnd,    // between a name and the end of its tag
  kArgs,      // between parameters
  kBody,      // a call's text that is no parameter
  kKey,       // parameter name="HERE
  kFlag,      // from there to >
  kValue,
  kCloseTag,  // after "</|DSML|"
  kDone,      // after the block
  kEnd,       // kFinish was sent
};

std::string Stripped(std::string_view text) {
  TokenFilter filter;
  const std::string out = filter.Push(text);
  return out + filter.Finish();
}

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

StringFlag FlagOf(std::string_view text) {
  text = Trimmed(text);
  if (text == "string=\"true\"") return StringFlag::kTrue;
  return text == "string=\"false\"" ? StringFlag::kFalse : StringFlag::kMissing;
}

}  // namespace

class StreamParser::Impl {
 public:
  Impl(ParserOptions options, EventSink sink)
      : options_(std::move(options)),
        sink_(std::move(sink)),
        patterns_(MakePatterns(options_.format, options_.parse_tools,
                               options_.recover_lost_opener && !options_.tools.empty())),
        stops_(options_.stops),
        state_(options_.thinking ? State::kReasoning : State::kContent) {
    if (options_.inside_block) state_ = State::kBlock;
  }

  void Feed(std::string_view bytes) {
    if (state_ == State::kEnd) return;
    pending_ += bytes;
    Run();
  }

  void Finish() {
    if (state_ == State::kEnd) return;
    at_end_ = true;
    Run();
    if (state_ == State::kReasoning || state_ == State::kContent) FinishText(/*drop=*/false);
    End(EndCause::kInput);
  }

  bool done() const { return state_ == State::kDone || state_ == State::kEnd; }
  const std::optional<std::string>& matched_stop() const { return matched_stop_; }

 private:
  void Run() {
    while (state_ != State::kEnd && Step()) {
    }
    pending_.erase(0, head_);
    head_ = 0;
  }

  // False if nothing more can be decided about the unread bytes.
  bool Step() {
    switch (state_) {
      case State::kReasoning:
        return StepText(patterns_.reasoning);
      case State::kContent:
        return StepText(patterns_.content);
      case State::kRecover:
        return StepRecover();
      case State::kBlock:
        return StepBlock();
      case State::kName:
        return StepName();
      case State::kBareName:
        return StepBareName();
      case State::kTagEnd:
        return StepTagEnd();
      case State::kArgs:
        return StepArgs();
      case State::kBody:
        return StepBody();
      case State::kKey:
        return StepKey();
      case State::kFlag:
        return StepFlag();
      case State::kValue:
        return StepValue();
      case State::kCloseTag:
        return StepCloseTag();
      case State::kDone:
        return StepDone();
      case State::kEnd:
        break;
    }
    return false;
  }

  // --- Reading ---------------------------------------------------------------------------------

  std::string_view Unread() const { return std::string_view(pending_).substr(head_); }

  // The unread bytes before `pos`, then read.
  std::string_view TakeTo(size_t pos) {
    const std::string_view piece = std::string_view(pending_).substr(head_, pos - head_);
    head_ = pos;
    return piece;
  }

  // Skips to the first pattern of `set`, reads it and returns its mark.
  std::optional<Mark> SkipTo(const PatternSet& set) {
    const Hit hit = Find(set, pending_, head_);
    head_ = hit.partial && at_end_ ? pending_.size() : hit.pos;
    if (hit.pattern == nullptr) return std::nullopt;
    head_ += hit.pattern->text.size();
    return hit.pattern->mark;
  }

  // Appends bytes to `token_` up to one of `stops`, which is returned and not read; NUL if it has
  // not come yet. A token that gets too long ends as if a line feed stood there.
  char ReadToken(std::string_view stops) {
    const std::string_view window = Unread().substr(0, kMaxNameBytes + 1 - token_.size());
    const size_t length = std::min(window.find_first_of(stops), window.size());
    token_ += TakeTo(head_ + length);
    if (length < window.size()) return pending_[head_];
    return token_.size() > kMaxNameBytes ? '\n' : '\0';
  }

  // --- Text ------------------------------------------------------------------------------------

  bool StepText(const PatternSet& set) {
    const Hit hit = Find(set, pending_, head_);
    Text(TakeTo(hit.pos));
    if (state_ == State::kEnd) return false;
    if (hit.pattern != nullptr) {
      head_ += hit.pattern->text.size();
      OnTextMark(*hit.pattern);
      return true;
    }
    if (!hit.partial || !at_end_) return false;
    // The beginning of a tag, cut off: with the token in it it cannot be prose. [rules 11, 12]
    if (Unread().find(kDsml) != std::string_view::npos) {
      head_ = pending_.size();
      held_newlines_ = 0;
      return false;
    }
    Text(TakeTo(head_ + 1));
    return state_ != State::kEnd;
  }

  void OnTextMark(const Pattern& pattern) {
    switch (pattern.mark) {
      case Mark::kThinkOpen:
        if (!at_start_) Text(pattern.text);
        return;
      case Mark::kThinkClose:
        if (state_ == State::kReasoning) Enter(State::kContent);
        return;
      case Mark::kOpener:
        Enter(State::kBlock);
        return;
      case Mark::kToolcallOpener:
        token_.clear();
        Enter(State::kBareName);
        return;
      case Mark::kLostInvoke:
        recovered_ = pattern.text;
        state_ = State::kRecover;
        return;
      case Mark::kEos:
        FinishText(/*drop=*/false);
        End(EndCause::kEos);
        return;
      default:
        return;  // a stray closer: dropped
    }
  }

  // Leaves a text state; newlines directly before the marker are not text.
  void Enter(State next) {
    FinishText(/*drop=*/true);
    if (state_ == State::kEnd) return;
    state_ = next;
    at_start_ = true;
  }

  // Newlines at the start are dropped, later ones held until it is known that text follows.
  void Text(std::string_view piece) {
    if (at_start_) piece.remove_prefix(std::min(piece.find_first_not_of('\n'), piece.size()));
    if (piece.empty()) return;
    at_start_ = false;
    const size_t last = piece.find_last_not_of('\n');
    if (last == std::string_view::npos) {
      held_newlines_ += piece.size();
      return;
    }
    FlushNewlines();
    Send(piece.substr(0, last + 1));
    held_newlines_ = piece.size() - last - 1;
  }

  void FlushNewlines() {
    if (held_newlines_ > 0) Send(std::string(std::exchange(held_newlines_, 0), '\n'));
  }

  void Send(std::string_view text) {
    SendFiltered(options_.parse_tools ? filter_.Push(text) : std::string(text));
  }

  void SendFiltered(const std::string& text) {
    if (state_ == State::kEnd) return;
    if (state_ == State::kReasoning) {
      Emit(Event::Kind::kReasoning, text);
      return;
    }
    Emit(Event::Kind::kContent, stops_.Push(text));
    if (stops_.stopped()) EndAtStop();
  }

  void FinishText(bool drop) {
    if (drop) held_newlines_ = 0;
    FlushNewlines();
    SendFiltered(filter_.Finish());
    if (state_ == State::kEnd || state_ == State::kReasoning) return;
    Emit(Event::Kind::kContent, stops_.Finish());
    if (stops_.stopped()) EndAtStop();
  }

  void EndAtStop() {
    matched_stop_ = stops_.matched();
    End(EndCause::kStopString);
  }

  // --- An invoke without its block [rule 9] ------------------------------------------------------

  bool StepRecover() {
    const Hit hit = Find(patterns_.recover, pending_, head_);
    recovered_ += TakeTo(hit.pos);
    if (hit.partial && at_end_) {
      recovered_ += TakeTo(pending_.size());
    } else if (hit.pattern == nullptr && !at_end_) {
      return false;
    } else if (hit.pattern != nullptr && hit.pattern->mark == Mark::kInvokeCloser) {
      recovered_ += TakeTo(head_ + hit.pattern->text.size());
      if (AcceptRecovered()) return true;
    }
    state_ = State::kContent;
    Text(std::exchange(recovered_, {}));
    return state_ != State::kEnd;
  }

  // A call if the tool is declared and got what it requires; then the block is taken as open.
  bool AcceptRecovered() {
    ParserOptions options{.format = options_.format, .inside_block = true, .tools = options_.tools};
    options.recover_lost_opener = false;
    std::string name;
    std::string arguments;
    int complete = 0;
    StreamParser parser(std::move(options), [&](const Event& event) {
      if (event.kind == Event::Kind::kCallStart) name = event.text;
      if (event.kind == Event::Kind::kArguments) arguments += event.text;
      if (event.kind == Event::Kind::kCallEnd) ++complete;
    });
    parser.Feed(recovered_);
    parser.Finish();
    if (complete != 1 || !HasRequired(name, arguments)) return false;
    recovered_.clear();
    state_ = State::kContent;
    Enter(State::kBlock);
    if (state_ == State::kEnd) return true;
    Emit(Event::Kind::kCallStart, name);
    Emit(Event::Kind::kArguments, arguments);
    Emit(Event::Kind::kCallEnd, "");
    return true;
  }

  bool HasRequired(std::string_view name, std::string_view arguments) const {
    const ToolSchema* tool = FindTool(name);
    const Result<JsonValue> json = ParseJsonValue(arguments, "arguments");
    if (tool == nullptr || !json.ok()) return false;
    return std::all_of(tool->required.begin(), tool->required.end(),
                       [&json](const auto& key) { return json->Find(key) != nullptr; });
  }

  const ToolSchema* FindTool(std::string_view name) const {
    const auto found = std::find_if(options_.tools.begin(), options_.tools.end(),
                                    [name](const ToolSchema& tool) { return tool.name == name; });
    return found == options_.tools.end() ? nullptr : &*found;
  }

  // --- Blocks and calls --------------------------------------------------------------------------

  bool StepBlock() {
    const std::optional<Mark> mark = SkipTo(patterns_.block);
    if (!mark.has_value()) return false;
    token_.clear();
    if (*mark == Mark::kInvoke) state_ = State::kName;
    if (*mark == Mark::kToolcallOpener) state_ = State::kBareName;
    if (*mark == Mark::kBlockCloser) state_ = State::kDone;
    if (*mark == Mark::kEos) End(EndCause::kEos);
    return true;
  }

  bool StepName() {
    const char stop = ReadToken("\"\n<");
    if (stop == '\0') return false;
    state_ = State::kBlock;
    if (stop != '"') return true;
    ++head_;
    if (!token_.empty()) BeginCall(Stripped(token_), State::kTagEnd);
    return true;
  }

  bool StepBareName() {
    const char stop = ReadToken("\n<{`");
    if (stop == '\0') return false;
    const std::string name = Stripped(Trimmed(token_));
    state_ = State::kBlock;
    if (!name.empty() && token_.size() <= kMaxNameBytes) BeginCall(name, State::kArgs);
    return true;
  }

  void BeginCall(const std::string& name, State next) {
    Emit(Event::Kind::kCallStart, name);
    call_.emplace(FindTool(name),
                  [this](std::string_view text) { Emit(Event::Kind::kArguments, text); });
    body_may_come_ = true;
    state_ = next;
  }

  void EndCall() {
    call_->Close();
    call_.reset();
    Emit(Event::Kind::kCallEnd, "");
  }

  bool StepTagEnd() {
    const size_t at = Unread().find_first_of(">\n<{");
    if (at == std::string_view::npos) {
      head_ = pending_.size();
      return false;
    }
    head_ += at;
    if (pending_[head_] == '>') ++head_;
    state_ = State::kArgs;
    return true;
  }

  bool StepArgs() {
    if (body_may_come_) {
      const size_t at = Unread().find_first_not_of(" \t\r\n");
      head_ = at == std::string_view::npos ? pending_.size() : head_ + at;
      if (head_ == pending_.size()) return false;
      body_may_come_ = false;
      if (pending_[head_] == '{' || pending_[head_] == '`') {
        body_.clear();
        state_ = State::kBody;
        return true;
      }
    }
    const std::optional<Mark> mark = SkipTo(patterns_.args);
    if (!mark.has_value()) return false;
    token_.clear();
    if (*mark == Mark::kParameter) state_ = State::kKey;
    if (*mark == Mark::kCloser) EnterCloseTag(/*closes_value=*/false);
    if (*mark == Mark::kInvoke) {  // the closing tag is missing
      EndCall();
      state_ = State::kName;
    }
    if (*mark == Mark::kEos) End(EndCause::kEos);
    return true;
  }

  bool StepBody() {
    const Hit hit = Find(patterns_.body, pending_, head_);
    body_ += TakeTo(hit.pos);
    if (hit.pattern == nullptr && !at_end_) return false;
    if (hit.pattern == nullptr) head_ = pending_.size();
    call_->Body(body_);
    state_ = State::kArgs;
    return true;
  }

  bool StepKey() {
    const char stop = ReadToken("\"\n<");
    if (stop == '\0') return false;
    state_ = State::kArgs;
    if (stop != '"') return true;
    ++head_;
    key_ = Stripped(token_);
    token_.clear();
    state_ = State::kFlag;
    return true;
  }

  bool StepFlag() {
    const char stop = ReadToken(">\n<");
    if (stop == '\0') return false;
    state_ = State::kArgs;
    if (stop != '>') return true;
    ++head_;
    call_->BeginParameter(key_, FlagOf(token_));
    state_ = State::kValue;
    return true;
  }

  bool StepValue() {
    const Hit hit = Find(patterns_.value, pending_, head_);
    call_->Value(TakeTo(hit.pos));
    if (hit.pattern == nullptr) {
      if (at_end_) head_ = pending_.size();
      return false;
    }
    if (hit.pattern->mark == Mark::kEos) {
      End(EndCause::kEos);
      return false;
    }
    call_->EndParameter();
    state_ = State::kArgs;
    if (hit.pattern->mark == Mark::kCloser) {
      head_ += hit.pattern->text.size();
      EnterCloseTag(/*closes_value=*/true);
    }
    return true;
  }

  void EnterCloseTag(bool closes_value) {
    closes_value_ = closes_value;
    state_ = State::kCloseTag;
  }

  // An unknown name closes what is open: a value, else the call.
  bool StepCloseTag() {
    const Closed closed = ClosedBy(Unread(), at_end_);
    if (closed == Closed::kNeedsMore) return false;
    state_ = State::kArgs;
    if (closed == Closed::kParameter || (closed == Closed::kUnknown && closes_value_)) return true;
    EndCall();
    state_ = closed == Closed::kBlock ? State::kDone : State::kBlock;
    return true;
  }

  bool StepDone() {
    if (!SkipTo(patterns_.done).has_value()) return false;
    End(EndCause::kEos);
    return false;
  }

  // --- Events ------------------------------------------------------------------------------------

  void Emit(Event::Kind kind, std::string_view text) {
    const bool has_text = kind != Event::Kind::kCallEnd && kind != Event::Kind::kFinish;
    if (has_text && text.empty()) return;
    sink_({.kind = kind, .text = text});
  }

  void End(EndCause cause) {
    if (state_ == State::kEnd) return;
    if (call_.has_value()) call_->Truncate();
    call_.reset();
    state_ = State::kEnd;
    head_ = pending_.size();
    sink_({.kind = Event::Kind::kFinish, .text = {}, .cause = cause});
  }

  ParserOptions options_;
  EventSink sink_;
  DsmlPatterns patterns_;
  TokenFilter filter_;
  StopMatcher stops_;
  State state_;

  std::string pending_;  // unread from head_ on
  size_t head_ = 0;
  bool at_end_ = false;

  bool at_start_ = true;  // of reasoning or content: nothing was sent yet
  size_t held_newlines_ = 0;
  std::string recovered_;  // an invoke without block, so far
  std::optional<std::string> matched_stop_;

  std::optional<CallAssembler> call_;
  std::string token_;  // name, key or flag, so far
  std::string key_;
  std::string body_;
  bool body_may_come_ = false;
  bool closes_value_ = false;
};

StreamParser::StreamParser(ParserOptions options, EventSink sink)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(sink))) {}
StreamParser::~StreamParser() = default;
StreamParser::StreamParser(StreamParser&&) noexcept = default;
StreamParser& StreamParser::operator=(StreamParser&&) noexcept = default;

void StreamParser::Feed(std::string_view bytes) { impl_->Feed(bytes); }
void StreamParser::Finish() { impl_->Finish(); }
bool StreamParser::done() const { return impl_->done(); }
const std::optional<std::string>& StreamParser::matched_stop() const {
  return impl_->matched_stop();
}

void MessageBuilder::Add(const Event& event) {
  switch (event.kind) {
    case Event::Kind::kReasoning:
      message_.reasoning_content += event.text;
      return;
    case Event::Kind::kContent:
      message_.content += event.text;
      return;
    case Event::Kind::kCallStart:
      SetCallName(event.text, format_, message_.tool_calls.emplace_back());
      return;
    case Event::Kind::kArguments:
      message_.tool_calls.back().arguments += event.text;
      return;
    case Event::Kind::kCallEnd:
      message_.tool_calls.back().complete = true;
      return;
    case Event::Kind::kFinish:
      cause_ = event.cause;
      return;
  }
}

ParsedMessage ParseCompletion(std::string_view text, const ParserOptions& options) {
  MessageBuilder builder(options.format);
  StreamParser parser(options, [&builder](const Event& event) { builder.Add(event); });
  parser.Feed(text);
  parser.Finish();
  return builder.message();
}

}  // namespace cachalot::chat
