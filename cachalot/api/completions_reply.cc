// SPDX-License-Identifier: Apache-2.0
// text_completion. [api.md 5]
#include <set>

#include "cachalot/api/json_text.h"
#include "cachalot/api/openai_reply.h"
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

class CompletionsReply final : public OpenAiReply {
 public:
  CompletionsReply(const GenerateRequest& request, ReplyInfo info)
      : OpenAiReply(request, std::move(info),
                    {.surface = Surface::kCompletions,
                     .id_prefix = "cmpl-",
                     .whole = "text_completion",
                     .chunk = "text_completion"}),
        logprobs_(request.logprobs),
        choices_(request.NumChoices()) {
    if (!request.echo) return;
    for (uint32_t i = 0; i < choices_.size(); ++i) {
      choices_[i].text = request.prompts[i / request.n].text;
    }
  }

  std::string Begin(const Usage&) override {
    if (!stream()) return "";
    std::string out;
    for (uint32_t i = 0; i < choices_.size(); ++i) {
      if (!choices_[i].text.empty()) out += Chunk(ChoiceJson(i, choices_[i].text, "null", "null"));
    }
    return out;
  }

  // Whatever the kind: there is one text only.
  std::string Add(const Delta& delta) override {
    CACHALOT_CHECK(delta.choice < choices_.size());
    Choice& choice = choices_[delta.choice];
    if (stream()) {
      const std::string logprobs =
          delta.logprobs.empty() ? "null" : Logprobs(delta.logprobs, choice);
      return Chunk(ChoiceJson(delta.choice, delta.text, logprobs, "null"));
    }
    choice.text += delta.text;
    choice.logprobs.insert(choice.logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
    return "";
  }

 protected:
  std::string LastChoice(uint32_t choice) const override {
    return ChoiceJson(choice, "", "null", FinishReason(choice));
  }

  std::string WholeChoice(uint32_t choice) const override {
    Choice counted{.offset = 0};
    return ChoiceJson(choice, choices_[choice].text, Logprobs(choices_[choice].logprobs, counted),
                      FinishReason(choice));
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

  bool logprobs_;
  std::vector<Choice> choices_;
};

}  // namespace

std::unique_ptr<ReplyWriter> MakeCompletionsReply(const GenerateRequest& request, ReplyInfo info) {
  return std::make_unique<CompletionsReply>(request, std::move(info));
}

}  // namespace cachalot::api
