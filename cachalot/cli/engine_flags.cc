// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/engine_flags.h"

#include <charconv>
#include <random>

#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"

namespace cachalot::cli {
namespace {

// Every name of an enumeration with XName / XFromName functions whose values start at 0.
std::vector<std::string> NumericsNames() {
  std::vector<std::string> names;
  for (const auto n : {model::Numerics::kFast, model::Numerics::kReference, model::Numerics::kExact,
                       model::Numerics::kOfficial}) {
    names.emplace_back(model::NumericsName(n));
  }
  return names;
}

std::vector<std::string> TargetNames() {
  std::vector<std::string> names;
  for (const kernels::Target t : kernels::SupportedTargets()) {
    names.emplace_back(kernels::TargetName(t));
  }
  return names;
}

Result<std::pair<uint32_t, float>> ParseBias(const std::string& text) {
  const size_t equals = text.find('=');
  uint32_t id = 0;
  float bias = 0;
  const char* end = text.data() + text.size();
  if (equals != std::string::npos) {
    const char* middle = text.data() + equals;
    const auto left = std::from_chars(text.data(), middle, id);
    const auto right = std::from_chars(middle + 1, end, bias);
    if (left.ec == std::errc() && left.ptr == middle && right.ec == std::errc() &&
        right.ptr == end) {
      return std::pair{id, bias};
    }
  }
  return Error{ErrorCode::kInvalidArgument,
               StrCat("--logit-bias '", text, "': expected ID=BIAS, as in 42=-1.5")};
}

uint64_t FreshSeed() {
  std::random_device device;
  // 53 bits: JSON readers keep integers exactly only up to there.
  return ((uint64_t{device()} << 32) | device()) >> 11;
}

}  // namespace

model::Numerics EngineFlags::numerics_value() const {
  return model::NumericsFromName(numerics).value_or(model::Numerics::kFast);
}

std::optional<kernels::Target> EngineFlags::target_value() const {
  return target.empty() ? std::nullopt : kernels::TargetFromName(target);
}

Pinning EngineFlags::pinning() const {
  return pin == "on" ? Pinning::kOn : pin == "off" ? Pinning::kOff : Pinning::kAuto;
}

engine::EngineOptions EngineFlags::ToEngineOptions(const model::Weights& weights) const {
  engine::EngineOptions options;
  options.numerics = numerics_value();
  options.target = target_value();
  options.num_threads = threads;
  options.pinning = pinning();
  options.max_context = max_context;
  if (chunk > 0) {
    options.prefill_chunk = chunk;
  } else if (weights.expert_source != nullptr && weights.expert_source->prefill_chunk() > 0) {
    options.prefill_chunk = weights.expert_source->prefill_chunk();
  }
  if (speculate == "on") options.speculation = engine::Speculation::kOn;
  if (speculate == "off") options.speculation = engine::Speculation::kOff;
  return options;
}

eval::RunnerOptions EngineFlags::ToRunnerOptions(uint32_t max_tokens) const {
  return {.numerics = numerics_value(),
          .target = target_value(),
          .num_threads = threads,
          .pinning = pinning(),
          .chunk = chunk,
          .max_tokens = max_tokens};
}

namespace {

void AddStreamFlags(CLI::App& command, EngineFlags& flags) {
  const auto add = [&command](const char* name, std::string& value, const char* help) {
    return command.add_option(name, value, help)->group("Memory");
  };
  add("--memory", flags.memory,
      "Memory of the process, as in 24G: experts that do not fit are read from disk as needed "
      "(default: all there is, less a reserve, if the model does not fit)")
      ->excludes("--mmap")
      ->excludes("--huge-pages");
  add("--expert-policy", flags.expert_policy, "Which experts stay: lru, lfu or cost")
      ->check(CLI::IsMember({"lru", "lfu", "cost"}))
      ->capture_default_str();
  add("--expert-profile", flags.expert_profile,
      "Remember in FILE which experts are used, start with those");
  add("--expert-prefetch", flags.expert_prefetch, "Read experts ahead that are likely needed")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  add("--weights-mirror", flags.weights_mirror,
      "A copy of the model's folder on a second drive, to read from both");
}

}  // namespace

void AddEngineFlags(CLI::App& command, EngineFlags& flags, bool with_context) {
  AddModelOption(command, flags.model);
  command.add_option("--numerics", flags.numerics, "How numbers are rounded (default: fast)")
      ->check(CLI::IsMember(NumericsNames()))
      ->group("Engine");
  command.add_option("--threads", flags.threads, "Threads (default: one per core)")
      ->check(CLI::Range(1, 4096))
      ->group("Engine");
  command.add_option("--target", flags.target, "Instruction set (default: the CPU's best)")
      ->check(CLI::IsMember(TargetNames()))
      ->group("Engine");
  command.add_option("--chunk", flags.chunk, "Prompt tokens per step (default: 512)")
      ->check(CLI::Range(1, 65536))
      ->group("Engine");
  command
      .add_option("--cpu-list", flags.cpu_list,
                  "CPUs to run on, as in 0,2-5 (default: all allowed)")
      ->group("Engine");
  command
      .add_option(
          "--pin", flags.pin,
          "Keep each thread on its core; auto: with several memory nodes, where they take all")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->capture_default_str()
      ->group("Engine");
  CLI::Option* mapped =
      command.add_flag("--mmap", flags.mmap, "Map the weights, read them as needed (default)");
  mapped->group("Engine");
  command
      .add_flag("--huge-pages", flags.huge_pages,
                "Copy the weights into anonymous huge pages instead of mapping them")
      ->excludes(mapped)
      ->group("Engine");
  command.add_flag("--preload", flags.preload, "Read all weights before starting")->group("Engine");
  command.add_flag("--lock", flags.lock, "Keep the weights in memory (needs `ulimit -l`)")
      ->group("Engine");
  AddStreamFlags(command, flags);
  if (!with_context) return;
  command
      .add_option("--max-context", flags.max_context,
                  "Tokens of prompt and answer together (default: the model's, at most 32768)")
      ->check(CLI::Range(1, 1 << 24))
      ->group("Engine");
  command
      .add_option("--speculate", flags.speculate,
                  "Draft tokens with the model's MTP block; auto: where it is measured to help")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->capture_default_str()
      ->group("Engine");
}

Result<engine::SamplingParams> SamplingFlags::Params(uint32_t vocab_size) const {
  engine::SamplingParams out = params;
  out.seed = seed.has_value() ? *seed : FreshSeed();
  for (const std::string& text : logit_bias) {
    CACHALOT_TRY(const auto bias, ParseBias(text));
    out.logit_bias.push_back(bias);
  }
  CACHALOT_RETURN_IF_ERROR(out.Validate(vocab_size));
  return out;
}

void AddSamplingFlags(CLI::App& command, SamplingFlags& flags) {
  const auto add = [&command](const char* name, auto& value, const char* help) {
    command.add_option(name, value, help)->group("Sampling");
  };
  engine::SamplingParams& p = flags.params;
  add("-n,--max-tokens", flags.max_tokens, "Tokens to generate at most; 0: to the context's end");
  add("--temperature", p.temperature, "0 takes the likeliest token (default: 1)");
  add("--top-p", p.top_p, "Keep the likeliest tokens of this total probability (default: 1)");
  add("--top-k", p.top_k, "Keep this many of the likeliest tokens; 0: all (default)");
  add("--min-p", p.min_p, "Drop tokens below this fraction of the likeliest (default: 0)");
  add("--repetition-penalty", p.repetition_penalty, "Weaken tokens seen before (default: 1)");
  add("--presence-penalty", p.presence_penalty, "Subtracted once from generated tokens' logits");
  add("--frequency-penalty", p.frequency_penalty, "Subtracted per occurrence");
  add("--logit-bias", flags.logit_bias, "ID=BIAS, added to a token's logit; repeatable");
  add("--seed", flags.seed, "Same seed, same text (default: a fresh one)");
  add("--stop", flags.stops, "End before this text; repeatable");
  command.add_flag("--ignore-eos", flags.ignore_eos, "Go on after an end-of-sentence token")
      ->group("Sampling");
}

void SetExamples(CLI::App& command, const std::string& examples) {
  std::string footer = "Examples:\n";
  size_t begin = 0;
  while (begin < examples.size()) {
    const size_t end = std::min(examples.find('\n', begin), examples.size());
    footer += StrCat("  ", examples.substr(begin, end - begin), "\n");
    begin = end + 1;
  }
  command.footer(footer);
}

}  // namespace cachalot::cli
