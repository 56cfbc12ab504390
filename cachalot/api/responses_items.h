// SPDX-License-Identifier: Apache-2.0
// The input of a Responses request. Internal to the module. [api.md 7.1]
#pragma once

#include <vector>

#include "cachalot/api/fields.h"
#include "cachalot/chat/messages.h"

namespace cachalot::api {

// `input` as messages, calls and outputs paired. Empty if there is none.
ApiResult<std::vector<chat::Message>> ReadResponsesInput(const Object& body);

}  // namespace cachalot::api
