// SPDX-License-Identifier: Apache-2.0
// From a request of any protocol to the ids the model reads. [chat.md 4, 7]
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cachalot/api/request.h"
#include "cachalot/serve/served_model.h"
#include "cachalot/serve/transcripts.h"

namespace cachalot::serve {

struct Prompt {
  std::string text;  // empty if the client sent ids
  std::vector<uint32_t> ids;
  bool thinking = false;   // the answer begins inside <think>
  std::string open_block;  // the opener of a tool block that the prompt ends with; or ""
};

// The prompt of a conversation; of /completions one for each given. 400 if it cannot be encoded,
// holds ids the model does not have or leaves no room in the context.
api::ApiResult<std::vector<Prompt>> BuildPrompts(const api::GenerateRequest& request,
                                                 const ServedModel& model,
                                                 kvcache::CacheScope scope,
                                                 Transcripts& transcripts);

}  // namespace cachalot::serve
