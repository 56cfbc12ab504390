// SPDX-License-Identifier: Apache-2.0
// What the reply writers share. Internal to the module.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/api/reply.h"

namespace cachalot::api {

std::unique_ptr<ReplyWriter> MakeChatReply(const GenerateRequest& request, ReplyInfo info);
std::unique_ptr<ReplyWriter> MakeCompletionsReply(const GenerateRequest& request, ReplyInfo info);
std::unique_ptr<ReplyWriter> MakeMessagesReply(const GenerateRequest& request, ReplyInfo info);
std::unique_ptr<ReplyWriter> MakeResponsesReply(const GenerateRequest& request, ReplyInfo info);

// The usage object of chat and text completions. [api.md 4.10]
std::string OpenAiUsage(const Usage& usage);
// "stop", "length", ... of chat and text completions.
std::string_view OpenAiFinish(Finish finish);

// A call's full name as the members `namespace` ("" if it has none) and `name`: JSON text.
struct CallName {
  std::string name_space;
  std::string name;
};
CallName SplitCallName(std::string_view full_name);

// [{"token", "logprob", "bytes", "top_logprobs"}], shared by chat and responses.
std::string LogprobList(const std::vector<TokenLogprob>& logprobs);

}  // namespace cachalot::api
