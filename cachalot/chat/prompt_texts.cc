// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/prompt_texts.h"

#include <array>

#include "cachalot/base/strings.h"
#include "cachalot/chat/json_fields.h"
#include "cachalot/chat/markers.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::chat {
namespace {

// "Text A": max of the preview, high of 0731.
constexpr std::string_view kAbsoluteMaximum =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to "
    "resolve the root cause, rigorously stress-testing your logic against all potential paths, "
    "edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, "
    "considered alternative, and rejected hypothesis to ensure absolutely no assumption is left "
    "unchecked.\n\n";

// "Text B": max of 0731.
constexpr std::string_view kBeyondMaximum =
    "Reasoning Effort: Beyond maximum \u2014 exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: "
    "exhaustively decompose the problem into its most fundamental components, trace every causal "
    "chain to its root, and resolve the underlying cause rather than any surface symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from multiple angles "
    "and are certain that no assumption remains unchecked and no error remains undiscovered.\n\n";

Error UnknownEffort(const ReasoningEffort& effort, Format format, std::string_view expected) {
  const std::string found = effort.name.empty() ? StrCat(effort.level) : Quoted(effort.name);
  return {ErrorCode::kInvalidArgument, StrCat("reasoning_effort: is ", found, ", expected ",
                                              expected, " in format ", FormatName(format))};
}

Result<std::string_view> NamedEffortText(const ReasoningEffort& effort, Format format) {
  if (format == Format::kV4Preview) {
    if (effort.name == "high") return std::string_view();
    if (effort.name == "max") return kAbsoluteMaximum;
    return UnknownEffort(effort, format, "high or max");
  }
  if (effort.name == "low") return std::string_view();
  if (effort.name == "high") return kAbsoluteMaximum;
  if (effort.name == "max") return kBeyondMaximum;
  return UnknownEffort(effort, format, "low, high or max");
}

Result<int64_t> EffortLevel(const std::optional<ReasoningEffort>& effort) {
  constexpr int64_t kDefault = 75;
  if (!effort.has_value()) return kDefault;
  if (effort->name == "low") return int64_t{50};
  if (effort->name == "high" || effort->name == "xhigh") return int64_t{75};
  if (effort->name == "max") return int64_t{100};
  if (!effort->name.empty() || effort->level < 1 || effort->level > 100) {
    return UnknownEffort(*effort, Format::kV4_1, "low, high, max or an integer from 1 to 100");
  }
  return effort->level;
}

std::string Opener(std::string_view tag) { return StrCat("<", kDsml, tag); }
std::string Closer(std::string_view tag) { return StrCat("</", kDsml, tag, ">"); }

std::string ParameterText(const DsmlTags& tags, std::string_view key, bool is_string,
                          std::string_view value) {
  return StrCat(Opener(tags.parameter), " name=\"", key, "\" string=\"",
                is_string ? "true" : "false", "\">", value, Closer(tags.parameter));
}

// Arguments that are no JSON object become one parameter `arguments` with the raw text. The
// released encoder does so for text that is no JSON; for JSON that is no object it fails, and we do
// not let history stop a conversation.
std::string ParametersText(const DsmlTags& tags, const std::string& arguments) {
  const Result<JsonValue> json = ParseJsonValue(arguments, "arguments");
  if (!json.ok() || !json->IsObject()) return ParameterText(tags, "arguments", true, arguments);
  std::string out;
  for (size_t i = 0; i < json->items.size(); ++i) {
    const JsonValue& value = json->items[i];
    if (i > 0) out += '\n';
    out += ParameterText(tags, json->keys[i], value.IsString(),
                         value.IsString() ? value.text : DumpPythonJson(value));
  }
  return out;
}

}  // namespace

Result<std::string> EffortText(const EncodeOptions& options) {
  std::string text;
  if (options.format == Format::kV4_1) {
    CACHALOT_TRY(const int64_t level, EffortLevel(options.reasoning_effort));
    text = StrCat("Reasoning Effort: ", level,
                  " (range 1-100, the higher the value, the more thorough the reasoning)\n\n");
  } else if (options.reasoning_effort.has_value()) {
    CACHALOT_TRY(text, NamedEffortText(*options.reasoning_effort, options.format));
  }
  if (options.thinking_mode != ThinkingMode::kThinking) text.clear();
  return text;
}

std::string ToolsText(const std::vector<JsonValue>& functions, Format format) {
  const DsmlTags tags = TagsOf(format);
  const std::string block = Opener(tags.block);
  const std::string invoke = Opener(tags.invoke);
  const std::string end_invoke = Closer(tags.invoke);
  std::string out = StrCat(
      "## Tools\n\n"
      "You have access to a set of tools to help answer the user's question. You can invoke tools "
      "by writing a \"",
      block, ">\" block like the following:\n\n", block, ">\n", invoke, " name=\"$TOOL_NAME\">\n",
      Opener(tags.parameter), " name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE",
      Closer(tags.parameter), "\n...\n", end_invoke, "\n", invoke, " name=\"$TOOL_NAME2\">\n...\n",
      end_invoke, "\n", Closer(tags.block), "\n\n");
  out += StrCat(
      "String parameters should be specified as is and set `string=\"true\"`. For all other types "
      "(numbers, booleans, arrays, objects), pass the value in JSON format and set "
      "`string=\"false\"`.\n\n"
      "If thinking_mode is enabled (triggered by ",
      kThinkOpen, "), you MUST output your complete reasoning inside ", kThinkOpen, "...",
      kThinkClose, " BEFORE any tool calls or final response.\n\nOtherwise, output directly after ",
      kThinkClose, " with tool calls or final response.\n\n### Available Tool Schemas\n\n");
  for (size_t i = 0; i < functions.size(); ++i) {
    if (i > 0) out += '\n';
    out += DumpPythonJson(functions[i]);
  }
  out +=
      "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke "
      "tool calls.\n";
  return out;
}

std::string ResponseFormatText(const JsonValue& schema) {
  return StrCat(
      "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n",
      DumpPythonJson(schema));
}

std::string ToolCallsText(const std::vector<ToolCall>& calls, Format format) {
  const DsmlTags tags = TagsOf(format);
  std::string out = StrCat("\n\n", Opener(tags.block), ">\n");
  for (const ToolCall& call : calls) {
    out += StrCat(Opener(tags.invoke), " name=\"", call.name, "\">\n",
                  ParametersText(tags, call.arguments), "\n", Closer(tags.invoke), "\n");
  }
  out += Closer(tags.block);
  return out;
}

std::string_view TaskMarker(Task task) {
  constexpr std::array<std::string_view, 7> kMarkers = {
      "",
      "<\uFF5Caction\uFF5C>",
      "<\uFF5Cquery\uFF5C>",
      "<\uFF5Cauthority\uFF5C>",
      "<\uFF5Cdomain\uFF5C>",
      "<\uFF5Ctitle\uFF5C>",
      "<\uFF5Cread_url\uFF5C>",
  };
  return kMarkers[static_cast<size_t>(task)];
}

}  // namespace cachalot::chat
