// SPDX-License-Identifier: Apache-2.0
// Tool lists and tool choices of the three protocols. Internal to the module.
// [api.md 4.9, 6.1, 7.1]
#pragma once

#include <string>
#include <string_view>

#include "cachalot/api/draft.h"
#include "cachalot/api/fields.h"

namespace cachalot::api {

// Each reads `tools`, then what is said about choosing among them.
ApiStatus ReadChatTools(const Object& body, Draft& draft);
ApiStatus ReadMessagesTools(const Object& body, Draft& draft);
ApiStatus ReadResponsesTools(const Object& body, Draft& draft);

}  // namespace cachalot::api
