// SPDX-License-Identifier: Apache-2.0
// The messages of an Anthropic request. Internal to the module. [api.md 6.1]
#pragma once

#include <string>
#include <vector>

#include "cachalot/api/fields.h"
#include "cachalot/chat/messages.h"

namespace cachalot::api {

// `system`, "" if there is none.
ApiResult<std::string> ReadMessagesSystem(const Object& body);
// `messages`: neighbors of one role put together, calls and results paired; a last message of the
// assistant's is set to be continued.
ApiResult<std::vector<chat::Message>> ReadMessagesMessages(const Object& body);

}  // namespace cachalot::api
