// SPDX-License-Identifier: Apache-2.0
// The fields that several protocols share. Internal to the module. [api.md 4.1-4.8]
#pragma once

#include <initializer_list>
#include <string_view>

#include "cachalot/api/draft.h"
#include "cachalot/api/fields.h"

namespace cachalot::api {

// model; aliases say something about thinking, so this comes last among those that do.
ApiStatus ReadModel(const Object& body, Draft& draft);
// stream, stream_options.include_usage.
ApiStatus ReadStream(const Object& body, GenerateRequest& request);
// temperature .. seed and logit_bias.
ApiStatus ReadSampling(const Object& body, Sampling& sampling);
// A string or a list of at most 16; empty ones are dropped.
ApiStatus ReadStops(const Object& body, std::string_view key, GenerateRequest& request);
// The first of `keys` that is there.
ApiStatus ReadMaxTokens(const Object& body, std::initializer_list<std::string_view> keys,
                        const ParseContext& context, GenerateRequest& request);
ApiStatus ReadN(const Object& body, const ParseContext& context, GenerateRequest& request);
// user_id, else user.
ApiStatus ReadUser(const Object& body, GenerateRequest& request);
// priority, a number; else service_tier: "priority" and "flex" are before and after the rest, any
// other name (Anthropic has some) says nothing.
ApiStatus ReadPriority(const Object& body, GenerateRequest& request);

// A name of an effort, or in V4.1 a number, at `key`: says that thinking is on or, with "none",
// off.
ApiStatus ReadEffort(const Object& object, std::string_view key, const ParseContext& context,
                     ThinkingWish& wish);

// {"type": "text" | "json_object" | "json_schema", ...} in all its shapes.
ApiStatus ReadOutputFormat(const Object& format, Draft& draft);
// A bare schema.
ApiStatus UseSchema(const chat::JsonValue& schema, const std::string& path, Draft& draft);
// The other forms of llama-server and vLLM: grammar, json_schema, guided_*, structured_outputs.
ApiStatus ReadOtherFormats(const Object& body, Draft& draft);

}  // namespace cachalot::api
