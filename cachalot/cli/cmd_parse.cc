// SPDX-License-Identifier: Apache-2.0
// cachalot parse: a completion to message JSON. [chat.md 8]
#include <cstdio>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/chat/messages.h"
#include "cachalot/chat/parse_strict.h"
#include "cachalot/chat/stream_parser.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"

namespace cachalot::cli {
namespace {

struct ParseFlags {
  std::string model;
  std::string file;
  std::string tools;
  std::string format;
  bool thinking = false;
  bool strict = false;
};

Result<std::vector<chat::ToolSchema>> ReadTools(const std::string& path) {
  CACHALOT_TRY(const std::string text, ReadInput(path));
  CACHALOT_TRY(const chat::JsonValue json, chat::ParseJsonValue(text, path));
  CACHALOT_TRY(const auto functions, chat::ToolFunctionsFromJson(json, path));
  return chat::ToolSchemasOf(functions);
}

Result<chat::ParsedMessage> Parse(const ParseFlags& flags) {
  chat::ParserOptions options{.thinking = flags.thinking};
  if (!flags.format.empty()) {
    CACHALOT_TRY(options.format, chat::ParseFormatName(flags.format));
  } else {
    CACHALOT_TRY(const std::string dir, ResolveModel(flags.model));
    CACHALOT_TRY(options.format, chat::DetectFormatOfDir(dir));
  }
  CACHALOT_TRY(const std::string text, ReadInput(flags.file));
  if (flags.strict) {
    return chat::ParseStrict(text, {.format = options.format, .thinking = flags.thinking});
  }
  if (!flags.tools.empty()) {
    CACHALOT_TRY(options.tools, ReadTools(flags.tools));
  }
  return chat::ParseCompletion(text, options);
}

// A completion that breaks the strict grammar is an answer, not a failure of the command: it goes
// to standard output for the program that asked.
int ReportStrict(const Error& error) {
  const Json json = {{"error", error.message}};
  fmt::print("{}\n", json.dump(-1, ' ', false, Json::error_handler_t::replace));
  return ExitCode(ErrorCode::kInvalidArgument);
}

}  // namespace

void RegisterParse(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<ParseFlags>();
  CLI::App* command = app.add_subcommand(
      "parse",
      "A completion to one line of message JSON: role, content, reasoning_content, "
      "tool_calls. Needs only the model's tokenizer.json");
  AddModelOption(*command, flags->model);
  command->add_option("FILE", flags->file, "The completion's bytes (default: standard input)");
  command->add_flag("--thinking", flags->thinking, "The prompt ended with <think>");
  command->add_option("--tools", flags->tools,
                      "JSON list of declared tools: turns on the rules about declared names");
  command->add_flag(
      "--strict", flags->strict,
      "DeepSeek's own grammar; a malformed completion gives {\"error\": ...} and exit "
      "code 1");
  command->add_option("--format", flags->format, "Prompt format (default: the model's)")
      ->check(CLI::IsMember({"v4-preview", "v4-0731", "v4.1"}));
  SetExamples(*command,
              "echo -n 'Let me see.</think>It is 4.' | cachalot parse --thinking\n"
              "cachalot parse --strict completion.txt");
  command->callback([flags, &exit_code] {
    const auto message = Parse(*flags);
    if (message.ok()) {
      fmt::print("{}\n", chat::MessageToJson(*message));
    } else if (flags->strict && message.error().code == ErrorCode::kInvalidArgument) {
      exit_code = ReportStrict(message.error());
    } else {
      exit_code = Report(message.error());
    }
  });
}

}  // namespace cachalot::cli
