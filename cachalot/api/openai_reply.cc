// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/openai_reply.h"

#include <utility>

#include "cachalot/api/json_text.h"
#include "cachalot/api/writers.h"
#include "cachalot/base/strings.h"

namespace cachalot::api {

OpenAiReply::OpenAiReply(const GenerateRequest& request, ReplyInfo info, const Names& names)
    : info_(std::move(info)),
      names_(names),
      stream_(request.stream),
      include_usage_(request.include_usage),
      finishes_(request.NumChoices(), Finish::kStop),
      num_open_(request.NumChoices()) {}

std::string OpenAiReply::End(uint32_t choice, Finish finish, std::string_view) {
  CACHALOT_CHECK(choice < finishes_.size());
  finishes_[choice] = FinishOf(choice, finish);
  if (!stream_) return "";
  --num_open_;
  last_ = choice;
  // The last choice's chunk waits for the usage.
  return num_open_ == 0 ? "" : Chunk(LastChoice(choice));
}

std::string OpenAiReply::Done(const Usage& usage) {
  usage_ = OpenAiUsage(usage);
  if (!stream_) return "";
  std::string out = Chunk(LastChoice(last_), include_usage_ ? "" : usage_);
  if (include_usage_) out += SseEvent("", Envelope(names_.chunk, "[]", usage_));
  return out + "data: [DONE]\n\n";
}

std::string OpenAiReply::Fail(const ApiError& error) {
  failure_ = ErrorBody(names_.surface, error);
  return stream_ ? SseEvent("", failure_) : "";
}

std::string OpenAiReply::Body() const {
  if (stream_) return "";
  if (!failure_.empty()) return failure_;
  std::vector<std::string> choices;
  for (uint32_t i = 0; i < finishes_.size(); ++i) choices.push_back(WholeChoice(i));
  return Envelope(names_.whole, JsonList(choices), usage_);
}

std::string OpenAiReply::FinishReason(uint32_t choice) const {
  return JsonText(OpenAiFinish(finishes_[choice]));
}

std::string OpenAiReply::Chunk(const std::string& choice, const std::string& usage) const {
  const bool says_null = usage.empty() && include_usage_;
  return SseEvent(
      "", Envelope(names_.chunk, JsonList({choice}), says_null ? std::string("null") : usage));
}

std::string OpenAiReply::Envelope(std::string_view object, const std::string& choices,
                                  const std::string& usage) const {
  return JsonObject({{"id", JsonText(StrCat(names_.id_prefix, info_.id))},
                     {"object", JsonText(object)},
                     {"created", std::to_string(info_.created)},
                     {"model", JsonText(info_.model)},
                     {"system_fingerprint", JsonText(info_.fingerprint)},
                     {"choices", choices},
                     {"usage", usage}});
}

}  // namespace cachalot::api
