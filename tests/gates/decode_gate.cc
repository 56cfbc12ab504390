// SPDX-License-Identifier: Apache-2.0
// Decodes on the tiny golden model, one thread, nothing random: what tests/gates/gate.py counts.
//
// Usage: decode_gate MODEL TARGET
// Prints one JSON object: bytes read, weights widened and multiply-adds of the matrix products of a
// prompt and of the decoding after it. Under callgrind, CachalotGateDecode is what is collected.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

#include "cachalot/kernels/traffic.h"
#include "cachalot/model/forward.h"

namespace {

using cachalot::Status;

constexpr uint32_t kPromptTokens = 300;  // CSA and HCA entries, more than the window
constexpr uint32_t kDecodeTokens = 24;

struct Run {
  std::unique_ptr<cachalot::kvcache::BlockPool> blocks;
  std::unique_ptr<cachalot::kvcache::Sequence> sequence;
  std::unique_ptr<cachalot::model::Forward> forward;
  std::vector<float> logits;

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

std::vector<uint32_t> Prompt(size_t vocab) {
  std::vector<uint32_t> ids(kPromptTokens);
  for (uint32_t i = 0; i < kPromptTokens; ++i)
    ids[i] = static_cast<uint32_t>((i * 37 + 11) % vocab);
  return ids;
}

void Print(const char* name, const cachalot::kernels::TrafficCounters& c, const char* end) {
  std::printf("\"%s\": {\"weight_bytes\": %ju, \"widened_weights\": %ju, \"dots\": %ju}%s", name,
              static_cast<uintmax_t>(c.weight_bytes), static_cast<uintmax_t>(c.widened_weights),
              static_cast<uintmax_t>(c.dots), end);
}

}  // namespace

// A name that callgrind's --toggle-collect finds.
extern "C" __attribute__((noinline)) bool CachalotGateDecode(void* state);
bool CachalotGateDecode(void* state) {
  Run& run = *static_cast<Run*>(state);
  for (uint32_t i = 0; i < kDecodeTokens; ++i) {
    const Status status = run.Feed({static_cast<uint32_t>((i * 53 + 7) % run.logits.size())});
    if (!status.ok()) return false;
  }
  return true;
}

namespace {

cachalot::Result<int> Main(const char* dir, cachalot::kernels::Target target) {
  namespace model = cachalot::model;
  CACHALOT_TRY(const auto weights, model::LoadWeights(dir));
  cachalot::ThreadPool pool(1);
  cachalot::kernels::TrafficCounters traffic[2];
  bool decoded = true;
  // Prompt and decoding each with counters of their own; a Forward keeps its context.
  for (int phase = 0; phase < 2; ++phase) {
    Run run;
    const auto spec =
        weights->config.kv_spec(model::KvFormatOf(model::Numerics::kFast), /*with_mtp=*/false);
    CACHALOT_TRY(run.blocks, cachalot::kvcache::BlockPool::Create(spec, 4));
    CACHALOT_TRY(run.sequence, cachalot::kvcache::Sequence::Create(*run.blocks));
    run.logits.resize(weights->config.vocab_size);
    CACHALOT_TRY(run.forward, model::Forward::Create(
                                  weights, {.max_step_tokens = kPromptTokens},
                                  {.pool = &pool, .target = target, .traffic = &traffic[phase]}));
    CACHALOT_RETURN_IF_ERROR(run.Feed(Prompt(run.logits.size())));
    if (phase == 0) continue;
    traffic[1].weight_bytes = traffic[1].widened_weights = traffic[1].dots = 0;
    decoded = CachalotGateDecode(&run);
  }
  if (!decoded) return 1;
  std::printf("{");
  Print("prefill", traffic[0], ", ");
  Print("decode", traffic[1], "}\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const auto target = argc == 3 ? cachalot::kernels::TargetFromName(argv[2]) : std::nullopt;
  if (!target.has_value()) {
    std::fprintf(stderr, "usage: decode_gate MODEL TARGET\n");
    return 2;
  }
  for (const auto supported : cachalot::kernels::SupportedTargets()) {
    if (supported != *target) continue;
    const auto result = Main(argv[1], *target);
    if (result.ok()) return *result;
    std::fprintf(stderr, "decode_gate: %s\n", result.error().message.c_str());
    return 1;
  }
  std::fprintf(stderr, "decode_gate: this CPU has no %s\n", argv[2]);
  return 77;
}
