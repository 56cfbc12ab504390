// SPDX-License-Identifier: Apache-2.0
// Decodes on the tiny golden model, one thread, nothing random: what tests/gates/gate.py counts.
//
// Usage: decode_gate MODEL TARGET PROMPT_TOKENS DECODE_TOKENS
// Prints one JSON object: bytes read, weights widened and multiply-adds of the matrix products of a
// prompt and of the decoding after it. Under callgrind, CachalotGateDecode is what is collected.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cachalot/kernels/traffic.h"
#include "cachalot/model/forward.h"

namespace {

using cachalot::Status;

constexpr uint32_t kMaxTokens = 512;

struct Run {
  std::unique_ptr<cachalot::kvcache::BlockPool> blocks;
  std::unique_ptr<cachalot::kvcache::Sequence> sequence;
  std::unique_ptr<cachalot::model::Forward> forward;
  std::vector<float> logits;
  uint32_t decode_tokens = 0;

  Status Feed(const std::vector<uint32_t>& ids) {
    const auto n = static_cast<uint32_t>(ids.size());
    CACHALOT_RETURN_IF_ERROR(sequence->Reserve(n));
    const uint32_t last = n - 1;
    const cachalot::model::SequenceInput input{.sequence = sequence.get(), .tokens = ids};
    cachalot::model::ForwardOutputs outputs;
    outputs.logit_rows = {&last, 1};
    outputs.logits = {logits.data(), 1, logits.size()};
    CACHALOT_RETURN_IF_ERROR(forward->Step({&input, 1}, outputs));
    sequence->Advance(n);
    return {};
  }
};

struct Traffic {
  uintmax_t weight_bytes, widened_weights, dots;
};

Traffic Read(const cachalot::kernels::TrafficCounters& c) {
  return {c.weight_bytes, c.widened_weights, c.dots};
}

void Print(const char* name, const Traffic& t, const char* end) {
  std::printf("\"%s\": {\"weight_bytes\": %ju, \"widened_weights\": %ju, \"dots\": %ju}%s", name,
              t.weight_bytes, t.widened_weights, t.dots, end);
}

std::vector<uint32_t> Prompt(uint32_t tokens, size_t vocab) {
  std::vector<uint32_t> ids(tokens);
  for (uint32_t i = 0; i < tokens; ++i) ids[i] = static_cast<uint32_t>((i * 37 + 11) % vocab);
  return ids;
}

}  // namespace

// A name that callgrind's --toggle-collect finds.
extern "C" __attribute__((noinline)) bool CachalotGateDecode(void* state);
bool CachalotGateDecode(void* state) {
  Run& run = *static_cast<Run*>(state);
  for (uint32_t i = 0; i < run.decode_tokens; ++i) {
    const Status status = run.Feed({static_cast<uint32_t>((i * 53 + 7) % run.logits.size())});
    if (!status.ok()) return false;
  }
  return true;
}

namespace {

cachalot::Result<int> Main(const char* dir, cachalot::kernels::Target target,
                           uint32_t prompt_tokens, uint32_t decode_tokens) {
  namespace model = cachalot::model;
  CACHALOT_TRY(const auto weights, model::LoadWeights(dir));
  cachalot::ThreadPool pool(1);
  cachalot::kernels::TrafficCounters counters;
  Run run{.decode_tokens = decode_tokens};
  const auto spec =
      weights->config.kv_spec(model::KvFormatOf(model::Numerics::kFast), /*with_mtp=*/false);
  CACHALOT_TRY(run.blocks, cachalot::kvcache::BlockPool::Create(spec, 8));
  CACHALOT_TRY(run.sequence, cachalot::kvcache::Sequence::Create(*run.blocks));
  run.logits.resize(weights->config.vocab_size);
  CACHALOT_TRY(run.forward,
               model::Forward::Create(weights, {.max_step_tokens = prompt_tokens},
                                      {.pool = &pool, .target = target, .traffic = &counters}));
  CACHALOT_RETURN_IF_ERROR(run.Feed(Prompt(prompt_tokens, run.logits.size())));
  const Traffic prompt = Read(counters);
  if (!CachalotGateDecode(&run)) return 1;
  const Traffic all = Read(counters);
  std::printf("{");
  Print("prefill", prompt, ", ");
  Print("decode",
        {all.weight_bytes - prompt.weight_bytes, all.widened_weights - prompt.widened_weights,
         all.dots - prompt.dots},
        "}\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const auto target = argc == 5 ? cachalot::kernels::TargetFromName(argv[2]) : std::nullopt;
  const auto prompt_tokens = argc == 5 ? static_cast<uint32_t>(std::atoi(argv[3])) : 0u;
  const auto decode_tokens = argc == 5 ? static_cast<uint32_t>(std::atoi(argv[4])) : 0u;
  if (!target.has_value() || prompt_tokens == 0 || prompt_tokens > kMaxTokens ||
      decode_tokens > kMaxTokens) {
    std::fprintf(stderr, "usage: decode_gate MODEL TARGET PROMPT_TOKENS DECODE_TOKENS\n");
    return 2;
  }
  const auto supported = cachalot::kernels::SupportedTargets();
  if (std::find(supported.begin(), supported.end(), *target) == supported.end()) {
    std::fprintf(stderr, "decode_gate: this CPU has no %s\n", argv[2]);
    return 77;
  }
  const auto result = Main(argv[1], *target, prompt_tokens, decode_tokens);
  if (result.ok()) return *result;
  std::fprintf(stderr, "decode_gate: %s\n", result.error().message.c_str());
  return 1;
}
