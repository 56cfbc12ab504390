// SPDX-License-Identifier: Apache-2.0
// chat.completion and chat.completion.chunk. [api.md 4.10]
#include "cachalot/api/json_text.h"
#include "cachalot/api/openai_reply.h"
#include "cachalot/api/writers.h"
#include "cachalot/base/strings.h"

namespace cachalot::api {
namespace {

struct Call {
  std::string id;
  std::string name;
  std::string arguments;
};

std::string CallJson(uint32_t index, const Call& call) {
  const CallName name = SplitCallName(call.name);
  return JsonObject({{"index", std::to_string(index)},
                     {"id", JsonText(call.id)},
                     {"type", "\"function\""},
                     {"function", JsonObject({{"namespace", name.name_space},
                                              {"name", name.name},
                                              {"arguments", JsonText(call.arguments)}})}});
}

struct Choice {
  std::string reasoning;
  std::string content;
  std::vector<Call> calls;
  std::vector<TokenLogprob> reasoning_logprobs;
  std::vector<TokenLogprob> content_logprobs;
  uint32_t num_calls = 0;
};

class ChatReply final : public OpenAiReply {
 public:
  ChatReply(const GenerateRequest& request, ReplyInfo info)
      : OpenAiReply(request, std::move(info),
                    {.surface = Surface::kChat,
                     .id_prefix = "chatcmpl-",
                     .whole = "chat.completion",
                     .chunk = "chat.completion.chunk"}),
        thinking_(request.thinking),
        logprobs_(request.logprobs),
        choices_(request.NumChoices()) {}

  std::string Begin(const Usage&) override {
    if (!stream()) return "";
    const std::string delta =
        thinking_ ? "{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"\"}"
                  : "{\"role\":\"assistant\",\"content\":\"\"}";
    std::string out;
    for (uint32_t i = 0; i < choices_.size(); ++i) {
      out += Chunk(ChoiceJson(i, delta, "null", "null"));
    }
    return out;
  }

  std::string Add(const Delta& delta) override {
    CACHALOT_CHECK(delta.choice < choices_.size());
    Choice& choice = choices_[delta.choice];
    if (delta.kind == Delta::Kind::kCallStart) ++choice.num_calls;
    if (delta.kind == Delta::Kind::kCallEnd) return "";
    CACHALOT_CHECK(delta.kind != Delta::Kind::kArguments || choice.num_calls > 0);
    if (stream()) {
      return Chunk(ChoiceJson(delta.choice, DeltaJson(delta), Logprobs(delta), "null"));
    }
    Collect(delta, choice);
    return "";
  }

 protected:
  Finish FinishOf(uint32_t choice, Finish finish) const override {
    const bool called = finish == Finish::kStop && choices_[choice].num_calls > 0;
    return called ? Finish::kToolCalls : finish;
  }

  std::string LastChoice(uint32_t choice) const override {
    return ChoiceJson(choice, ContentDelta(""), "null", FinishReason(choice));
  }

  std::string WholeChoice(uint32_t index) const override {
    const Choice& choice = choices_[index];
    std::vector<std::string> calls;
    for (uint32_t i = 0; i < choice.calls.size(); ++i) {
      calls.push_back(CallJson(i, choice.calls[i]));
    }
    const std::string message = JsonObject(
        {{"role", "\"assistant\""},
         {"content", JsonText(choice.content)},
         {"reasoning_content", choice.reasoning.empty() ? "" : JsonText(choice.reasoning)},
         {"tool_calls", calls.empty() ? "" : JsonList(calls)}});
    return JsonObject({{"index", std::to_string(index)},
                       {"message", message},
                       {"logprobs", WholeLogprobs(choice)},
                       {"finish_reason", FinishReason(index)}});
  }

 private:
  std::string DeltaJson(const Delta& delta) const {
    const uint32_t call = choices_[delta.choice].num_calls - 1;
    switch (delta.kind) {
      case Delta::Kind::kReasoning:
        return JsonObject({{"content", "null"}, {"reasoning_content", JsonText(delta.text)}});
      case Delta::Kind::kContent:
        return ContentDelta(delta.text);
      case Delta::Kind::kCallStart:
        return CallsDelta(CallJson(call, {IdOf(delta.choice, call), delta.text, ""}));
      case Delta::Kind::kArguments:
      case Delta::Kind::kCallEnd:
        break;
    }
    return CallsDelta(
        JsonObject({{"index", std::to_string(call)},
                    {"function", JsonObject({{"arguments", JsonText(delta.text)}})}}));
  }

  static std::string CallsDelta(const std::string& call) {
    return JsonObject({{"tool_calls", JsonList({call})}});
  }

  std::string ContentDelta(std::string_view text) const {
    return JsonObject(
        {{"content", JsonText(text)}, {"reasoning_content", thinking_ ? "null" : ""}});
  }

  std::string IdOf(uint32_t choice, uint32_t call) const {
    return CallId(Surface::kChat, id(), choice, call);
  }

  std::string Logprobs(const Delta& delta) const {
    if (!logprobs_ || delta.logprobs.empty()) return "null";
    const std::string list = LogprobList(delta.logprobs);
    const bool reasoning = delta.kind == Delta::Kind::kReasoning;
    return JsonObject({{"content", reasoning ? "null" : list},
                       {"reasoning_content", reasoning   ? list
                                             : thinking_ ? "null"
                                                         : ""}});
  }

  static std::string ChoiceJson(uint32_t index, const std::string& delta,
                                const std::string& logprobs, const std::string& finish) {
    return JsonObject({{"index", std::to_string(index)},
                       {"delta", delta},
                       {"logprobs", logprobs},
                       {"finish_reason", finish}});
  }

  // Whole replies.
  void Collect(const Delta& delta, Choice& choice) {
    std::vector<TokenLogprob>* logprobs = nullptr;
    switch (delta.kind) {
      case Delta::Kind::kReasoning:
        choice.reasoning += delta.text;
        logprobs = &choice.reasoning_logprobs;
        break;
      case Delta::Kind::kContent:
        choice.content += delta.text;
        logprobs = &choice.content_logprobs;
        break;
      case Delta::Kind::kCallStart:
        choice.calls.push_back({IdOf(delta.choice, choice.num_calls - 1), delta.text, ""});
        break;
      case Delta::Kind::kArguments:
        choice.calls.back().arguments += delta.text;
        break;
      case Delta::Kind::kCallEnd:
        break;
    }
    if (logprobs == nullptr || !logprobs_) return;
    logprobs->insert(logprobs->end(), delta.logprobs.begin(), delta.logprobs.end());
  }

  std::string WholeLogprobs(const Choice& choice) const {
    if (!logprobs_) return "null";
    return JsonObject(
        {{"content", LogprobList(choice.content_logprobs)},
         {"reasoning_content", thinking_ ? LogprobList(choice.reasoning_logprobs) : ""}});
  }

  bool thinking_;
  bool logprobs_;
  std::vector<Choice> choices_;
};

}  // namespace

std::unique_ptr<ReplyWriter> MakeChatReply(const GenerateRequest& request, ReplyInfo info) {
  return std::make_unique<ChatReply>(request, std::move(info));
}

}  // namespace cachalot::api
