// SPDX-License-Identifier: Apache-2.0
// text_completion. [api.md 5]
#include <set>

#include "cachalot/api/json_text.h"
#include "cachalot/api/writers.h"

namespace cachalot::api {
namespace {

// Unicode characters, which is what text_offset counts.
size_t NumCharacters(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

struct Choice {
  std::string text;
  std::vector<TokenLogprob> logprobs;
  size_t offset = 0;  // characters of the tokens whose logprobs were sent
  Finish finish = Finish::kStop;
};

// {"token": logprob, ...}; tokens that look the same in UTF-8 keep the best.
std::string TopObject(const TokenLogprob& token) {
  std::set<std::string> seen;
  std::string out = "{";
  for (const auto& [bytes, logprob] : token.top) {
    const std::string key = JsonText(bytes);
    if (!seen.insert(key).second) continue;
    if (out.size() > 1) out += ',';
    out += key + ":" + JsonLogprob(logprob);
  }
  return out + "}";
}

class CompletionsReply final : public ReplyWriter {
 public:
  CompletionsReply(const GenerateRequest& request, ReplyInfo info)
      : info_(std::move(info)),
        stream_(request.stream),
        include_usage_(request.include_usage),
        logprobs_(request.logprobs),
        choices_(request.NumChoices()),
        num_open_(request.NumChoices()) {
    if (!request.echo) return;
    for (uint32_t i = 0; i < choices_.size(); ++i) {
      choices_[i].text = request.prompts[i / request.n].text;
    }
  }

  std::string Begin(const Usage&) override {
    if (!stream_) return "";
    std::string out;
    for (uint32_t i = 0; i < choices_.size(); ++i) {
      if (!choices_[i].text.empty()) out += Chunk(i, choices_[i].text, "null", "null", "");
    }
    return out;
  }

  // Whatever the kind: there is one text only.
  std::string Add(const Delta& delta) override {
    CACHALOT_CHECK(delta.choice < choices_.size());
    Choice& choice = choices_[delta.choice];
    if (stream_) {
      const std::string logprobs =
          delta.logprobs.empty() ? "null" : Logprobs(delta.logprobs, choice);
      return Chunk(delta.choice, delta.text, logprobs, "null", "");
    }
    choice.text += delta.text;
    choice.logprobs.insert(choice.logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
    return "";
  }

  std::string End(uint32_t index, Finish finish, std::string_view) override {
    CACHALOT_CHECK(index < choices_.size());
    choices_[index].finish = finish;
    if (!stream_) return "";
    --num_open_;
    last_ = index;
    // The last choice's chunk waits for the usage.
    return num_open_ == 0 ? "" : FinishChunk(index, "");
  }

  std::string Done(const Usage& usage) override {
    usage_ = OpenAiUsage(usage);
    if (!stream_) return "";
    std::string out = FinishChunk(last_, include_usage_ ? "" : usage_);
    if (include_usage_) out += SseEvent("", Envelope("[]", usage_));
    return out + "data: [DONE]\n\n";
  }

  std::string Fail(const ApiError& error) override {
    failure_ = ErrorBody(Surface::kCompletions, error);
    return stream_ ? SseEvent("", failure_) : "";
  }

  std::string Body() const override {
    if (stream_) return "";
    if (!failure_.empty()) return failure_;
    std::vector<std::string> choices;
    for (uint32_t i = 0; i < choices_.size(); ++i) {
      Choice counted{.offset = 0};
      choices.push_back(ChoiceJson(i, choices_[i].text, Logprobs(choices_[i].logprobs, counted),
                                   JsonText(OpenAiFinish(choices_[i].finish))));
    }
    return Envelope(JsonList(choices), usage_);
  }

 private:
  std::string Logprobs(const std::vector<TokenLogprob>& logprobs, Choice& choice) const {
    if (!logprobs_) return "null";
    std::vector<std::string> offsets, values, tokens, tops;
    for (const TokenLogprob& token : logprobs) {
      offsets.push_back(std::to_string(choice.offset));
      choice.offset += NumCharacters(token.token_bytes);
      values.push_back(JsonLogprob(token.logprob));
      tokens.push_back(JsonText(token.token_bytes));
      tops.push_back(TopObject(token));
    }
    return JsonObject({{"text_offset", JsonList(offsets)},
                       {"token_logprobs", JsonList(values)},
                       {"tokens", JsonList(tokens)},
                       {"top_logprobs", JsonList(tops)}});
  }

  static std::string ChoiceJson(uint32_t index, std::string_view text, const std::string& logprobs,
                                const std::string& finish) {
    return JsonObject({{"index", std::to_string(index)},
                       {"text", JsonText(text)},
                       {"logprobs", logprobs},
                       {"finish_reason", finish}});
  }

  std::string Chunk(uint32_t index, std::string_view text, const std::string& logprobs,
                    const std::string& finish, const std::string& usage) const {
    const std::string choice = ChoiceJson(index, text, logprobs, finish);
    const bool says_null = usage.empty() && include_usage_;
    return SseEvent("", Envelope(JsonList({choice}), says_null ? std::string("null") : usage));
  }

  std::string FinishChunk(uint32_t index, const std::string& usage) const {
    return Chunk(index, "", "null", JsonText(OpenAiFinish(choices_[index].finish)), usage);
  }

  std::string Envelope(const std::string& choices, const std::string& usage) const {
    return JsonObject({{"id", JsonText("cmpl-" + info_.id)},
                       {"object", "\"text_completion\""},
                       {"created", std::to_string(info_.created)},
                       {"model", JsonText(info_.model)},
                       {"system_fingerprint", JsonText(info_.fingerprint)},
                       {"choices", choices},
                       {"usage", usage}});
  }

  ReplyInfo info_;
  bool stream_;
  bool include_usage_;
  bool logprobs_;
  std::vector<Choice> choices_;
  size_t num_open_;
  uint32_t last_ = 0;  // the choice that ended last
  std::string usage_;
  std::string failure_;
};

}  // namespace

std::unique_ptr<ReplyWriter> MakeCompletionsReply(const GenerateRequest& request, ReplyInfo info) {
  return std::make_unique<CompletionsReply>(request, std::move(info));
}

}  // namespace cachalot::api
