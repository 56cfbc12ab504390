// SPDX-License-Identifier: Apache-2.0
// The messages of a chat completion, with the rules of api.md 4.2. Internal to the module.
#pragma once

#include <vector>

#include "cachalot/api/fields.h"
#include "cachalot/chat/messages.h"

namespace cachalot::api {

ApiResult<std::vector<chat::Message>> ReadChatMessages(const Object& body);

}  // namespace cachalot::api
