// SPDX-License-Identifier: Apache-2.0
// cachalot render: messages to the exact prompt. [chat.md 4]
#include <fmt/format.h>

#include <cstdio>

#include "cachalot/base/strings.h"
#include "cachalot/chat/encode.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot::cli {
namespace {

struct RenderFlags {
  std::string model;
  std::string file;
  std::string format;
  bool ids = false;
};

// --format if given, else what the model's files say.
Result<chat::Format> ChooseFormat(const RenderFlags& flags, const std::string& dir) {
  if (!flags.format.empty()) return chat::ParseFormatName(flags.format);
  return chat::DetectFormatOfDir(dir);
}

Status Render(const RenderFlags& flags) {
  CACHALOT_TRY(const std::string dir, ResolveModel(flags.model));
  CACHALOT_TRY(const std::string text, ReadInput(flags.file));
  CACHALOT_TRY(
      chat::RenderRequest request,
      chat::RenderRequestFromJson(text, flags.file.empty() ? "standard input" : flags.file));
  CACHALOT_TRY(request.options.format, ChooseFormat(flags, dir));
  CACHALOT_TRY(std::string prompt, chat::EncodePrompt(request.conversation, request.options));
  if (flags.ids) {
    CACHALOT_TRY(const auto tokenizer, tokenizer::Tokenizer::Load(dir));
    const std::vector<uint32_t> ids = tokenizer->Encode(prompt, /*parse_special=*/true);
    prompt = fmt::format("[{}]\n", fmt::join(ids, ", "));
  }
  const bool written = std::fwrite(prompt.data(), 1, prompt.size(), stdout) == prompt.size();
  if (!written || std::fflush(stdout) != 0) {
    return Error{ErrorCode::kIo, "standard output: cannot write"};
  }
  return {};
}

}  // namespace

void RegisterRender(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<RenderFlags>();
  CLI::App* command = app.add_subcommand(
      "render",
      "Messages, tools, thinking mode and effort to the exact prompt. Needs only the model's "
      "tokenizer.json");
  AddModelOption(*command, flags->model);
  command->add_option("FILE", flags->file,
                      "JSON: a list of messages, or an object with messages, tools, "
                      "response_format, thinking_mode, reasoning_effort, drop_thinking "
                      "(default: standard input)");
  command->add_option("--format", flags->format, "Prompt format (default: the model's)")
      ->check(CLI::IsMember({"v4-preview", "v4-0731", "v4.1"}));
  command->add_flag("--ids", flags->ids, "Print token ids as one JSON array");
  SetExamples(*command,
              "echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | cachalot render\n"
              "cachalot render --format v4-0731 --ids conversation.json");
  command->callback([flags, &exit_code] {
    if (const Status status = Render(*flags); !status.ok()) exit_code = Report(status.error());
  });
}

}  // namespace cachalot::cli
