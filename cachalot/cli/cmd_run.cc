// SPDX-License-Identifier: Apache-2.0
// cachalot run: one completion, streamed.
#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/answer_stream.h"
#include "cachalot/cli/cache_flags.h"
#include "cachalot/cli/chat_turn.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/generate.h"
#include "cachalot/cli/terminal.h"
#include "cachalot/cli/text_model.h"
#include "cachalot/eval/memory_sweep.h"

namespace cachalot::cli {
namespace {

constexpr std::string_view kDefaultPrompt = "It is a truth universally acknowledged";
// A plain completion has no natural end; a chat answer has.
constexpr uint32_t kDefaultPlainTokens = 256;

struct RunFlags {
  EngineFlags engine;
  CacheFlags cache;
  SamplingFlags sampling;
  std::string prompt;
  std::string file;
  bool has_prompt = false;
  bool chat = false;
  bool raw = false;
  std::string think = "off";
  bool json = false;
  bool stats = false;
};

struct Prompt {
  std::string text;
  bool is_default = false;
};

Result<Prompt> ReadPrompt(const RunFlags& flags) {
  if (flags.has_prompt) return Prompt{flags.prompt};
  if (!flags.file.empty()) {
    CACHALOT_TRY(std::string text, ReadInput(flags.file));
    return Prompt{std::move(text)};
  }
  Prompt prompt;
  if (!StdinIsTerminal()) {
    CACHALOT_TRY(prompt.text, ReadInput("-"));
  }
  if (!prompt.text.empty()) return prompt;
  return Prompt{std::string(kDefaultPrompt), true};
}

Result<std::vector<uint32_t>> EncodePlain(const TextModel& model, const std::string& text) {
  CACHALOT_TRY(std::vector<uint32_t> ids, model.Encode(text));
  if (model.plain_prefix.has_value() && (ids.empty() || ids[0] != *model.plain_prefix)) {
    ids.insert(ids.begin(), *model.plain_prefix);
  }
  if (ids.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "the prompt is empty and this model has no begin-of-sentence token; give text"};
  }
  return ids;
}

Result<std::vector<uint32_t>> EncodePrompt(const RunFlags& flags, const TextModel& model,
                                           const std::string& text) {
  if (!flags.chat) return EncodePlain(model, text);
  if (!model.has_chat_tokens) {
    return Error{ErrorCode::kInvalidArgument, StrCat("--chat: the tokenizer of ", model.dir,
                                                     " has no chat markers; leave out --chat")};
  }
  Conversation conversation;
  conversation.think = flags.think;
  conversation.messages.push_back({"user", text, ""});
  CACHALOT_TRY(const std::string rendered, RenderConversation(conversation, model.dir));
  return model.Encode(rendered);
}

Result<engine::Request> MakeRequest(const RunFlags& flags, const TextModel& model,
                                    const std::string& text) {
  engine::Request request;
  CACHALOT_TRY(request.prompt, EncodePrompt(flags, model, text));
  CACHALOT_TRY(request.sampling, flags.sampling.Params(model.weights->config.vocab_size));
  request.max_new_tokens = flags.sampling.max_tokens.value_or(flags.chat ? 0 : kDefaultPlainTokens);
  if (!flags.sampling.ignore_eos) request.stop_tokens = model.stop_tokens;
  return request;
}

Json ToJson(const AnswerStream& output, const Generation& g, const engine::SamplingParams& sampling,
            const TextModel& model, double load_seconds) {
  Json json = {{"model", model.dir}, {"text", output.content()}};
  if (!output.reasoning().empty()) json["reasoning"] = output.reasoning();
  json["ids"] = g.tokens;
  json["finish_reason"] = FinishName(g.finish);
  json["seed"] = sampling.seed;
  json["usage"] = {{"prompt_tokens", g.prompt_tokens},
                   {"completion_tokens", g.tokens.size()},
                   {"total_tokens", g.prompt_tokens + g.tokens.size()}};
  json["timings"] = {{"load_s", load_seconds},
                     {"prefill_s", g.prefill_seconds},
                     {"prefill_tokens_per_s", g.prefill_per_s()},
                     {"decode_s", g.decode_seconds},
                     {"decode_tokens_per_s", g.decode_per_s()}};
  if (!g.decode_experts.layers.empty()) {
    json["experts"] = {{"prefill", eval::ExpertStatsJson(g.prefill_experts)},
                       {"decode", eval::ExpertStatsJson(g.decode_experts)}};
  }
  return json;
}

Status RunOnce(const RunFlags& flags) {
  const auto start = std::chrono::steady_clock::now();
  InstallInterruptHandler();
  CACHALOT_TRY(const TextModel model, OpenTextModel(flags.engine));
  CACHALOT_TRY(const Prompt prompt, ReadPrompt(flags));
  CACHALOT_TRY(engine::Request request, MakeRequest(flags, model, prompt.text));
  engine::EngineOptions options = flags.engine.ToEngineOptions(*model.weights);
  CACHALOT_TRY(options.disk, flags.cache.Open({}));
  if (flags.cache.wanted()) request.cache = kvcache::CacheScope{};
  CACHALOT_TRY(const auto engine, engine::Engine::Create(model.weights, options));
  const double load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const engine::SamplingParams sampling = request.sampling;
  // A default prompt is nobody's: without it the completion would begin in mid-sentence.
  const bool echo = !flags.json && !flags.chat && (StdoutIsTerminal() || prompt.is_default);
  if (echo) {
    const Style style = StyleFor(UseColor(StdoutIsTerminal()));
    fmt::print("{}{}{}", style.bold, SanitizeForTerminal(prompt.text), style.reset);
  }
  AnswerStream output(*model.tokenizer, {.thinking = flags.chat && flags.think != "off",
                                         .quiet = flags.json,
                                         .stops = flags.sampling.stops});
  CACHALOT_TRY(const Generation generation,
               Generate(*engine, std::move(request), [&](uint32_t id) { return output.Push(id); }));
  output.Finish();
  if (!flags.json) fmt::print("\n");
  if (flags.json) {
    // A stop in the middle of a character leaves bytes that are no UTF-8.
    fmt::print("{}\n", ToJson(output, generation, sampling, model, load_seconds)
                           .dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  if (flags.stats || (StderrIsTerminal() && !flags.json)) {
    fmt::print(stderr, "[{}; seed {}]\n", FormatStats(generation, engine->max_context()),
               sampling.seed);
  }
  CACHALOT_RETURN_IF_ERROR(SaveExperience(flags.engine, *model.weights));
  if (generation.finish != engine::FinishReason::kCancelled) return {};
  return Error{ErrorCode::kCancelled,
               StrCat("stopped after ", generation.tokens.size(), " tokens")};
}

}  // namespace

void RegisterRun(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* command = app.add_subcommand("run", "Complete a prompt, streamed");
  AddEngineFlags(*command, flags->engine, true);
  AddSamplingFlags(*command, flags->sampling);
  AddRunCacheFlags(*command, flags->cache);
  CLI::Option* prompt = command->add_option("-p,--prompt", flags->prompt, "Text to complete");
  CLI::Option* file = command->add_option("-f,--file", flags->file,
                                          "File with the prompt; - for standard input (also "
                                          "read when it is no terminal and -p is absent)");
  prompt->excludes(file);
  CLI::Option* raw =
      command->add_flag("--raw", flags->raw, "Complete the text as it is (the default)");
  CLI::Option* chat =
      command->add_flag("--chat", flags->chat, "Send the prompt as one message of a user");
  raw->excludes(chat);
  command->add_option("--think", flags->think, "With --chat: off (default), low, high or max")
      ->check(CLI::IsMember({"off", "low", "high", "max"}))
      ->needs(chat);
  command->add_flag("--json", flags->json,
                    "One object: text, ids, finish_reason, seed, usage, timings, experts");
  command->add_flag(
      "--stats", flags->stats,
      "Speed on standard error, also without a terminal, and of streamed experts hits, "
      "reads and waiting");
  SetExamples(*command,
              "cachalot run -p \"Once upon a time\"\n"
              "cachalot run -p \"Once upon a time\" --seed 7 --temperature 0.8 -n 100\n"
              "cachalot run -m DIR --chat --think high -f question.txt\n"
              "cachalot run -m DIR --cache -f book.txt\n"
              "echo \"My dear Mr. Bennet\" | cachalot run --json");
  command->callback([flags, prompt, &exit_code] {
    flags->has_prompt = prompt->count() > 0;
    const Status status = RunOnce(*flags);
    if (!status.ok()) exit_code = Report(status.error());
  });
}

}  // namespace cachalot::cli
