// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/load_plan.h"

#include <algorithm>
#include <filesystem>

#include "cachalot/base/strings.h"
#include "cachalot/cli/progress.h"

namespace cachalot::cli {
namespace {

constexpr uint32_t kTileTokens = 128;  // the attention half runs in tiles [docs/design/model.md]

}  // namespace

std::string LoadPlan::Describe() const {
  std::string line = fmt::format(
      "plan: weights {}, KV {} for {} x {} tokens, scratch {}; {} of {} available: ",
      FormatBytes(weight_bytes), FormatBytes(kv_bytes), sequences, context,
      FormatBytes(scratch_bytes), FormatBytes(available_bytes), FormatBytes(memory_bytes));
  if (fits()) return line + "all fits in memory";
  if (must_stay) return line + "does not fit";
  const uint64_t room = available_bytes > private_bytes() ? available_bytes - private_bytes() : 0;
  return line + fmt::format("{:.0f} % of the weights fit, the rest is read from disk as needed",
                            100.0 * static_cast<double>(room) /
                                static_cast<double>(std::max<uint64_t>(weight_bytes, 1)));
}

Status LoadPlan::Check() const {
  if (!must_stay || fits()) return {};
  return Error{
      ErrorCode::kResourceExhausted,
      StrCat("weights of ", FormatBytes(weight_bytes), " with KV and scratch of ",
             FormatBytes(private_bytes()), " do not fit in the ", FormatBytes(available_bytes),
             " available; leave out --huge-pages and --lock to map them")};
}

uint64_t ShardBytes(const std::string& dir) {
  uint64_t bytes = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(dir, ignored)) {
    if (entry.path().extension() != ".safetensors") continue;
    const uintmax_t size = entry.file_size(ignored);
    if (size != static_cast<uintmax_t>(-1)) bytes += size;
  }
  return bytes;
}

uint64_t EstimateScratchBytes(const model::Config& c, uint32_t tokens) {
  const uint64_t t = tokens;
  const uint64_t tile = std::min(tokens, kTileTokens);
  const uint64_t experts = c.num_experts_per_tok;
  const uint64_t query = uint64_t{c.num_attention_heads} * c.head_dim;
  // Streams, x and z; gate, up and output rows of the chosen experts and the shared one.
  uint64_t floats = t * (uint64_t{c.hc_mult} + 2) * c.hidden_size +
                    t * experts * (2 * uint64_t{c.moe_intermediate_size} + c.hidden_size) +
                    t * (2 * uint64_t{c.shared_intermediate_size()} + c.hidden_size);
  floats += tile * (query + uint64_t{c.o_groups} * c.o_lora_rank + c.q_lora_rank);
  // KV rows, compressor rows (k and gate, main and index), index queries, and a wave's entries.
  floats += tile * (5 * uint64_t{c.head_dim} +
                    uint64_t{c.index_head_dim} * (4 + uint64_t{c.index_n_heads}));
  floats += kTileTokens * (uint64_t{c.head_dim} + c.index_head_dim);
  // Inputs rounded to BF16, twice (as they are and in the order of FP4) and with room between rows:
  // the larger of a tile's queries and the experts' hidden rows.
  const uint64_t rounded = std::max(
      {tile * query, t * (experts * c.moe_intermediate_size + c.shared_intermediate_size()),
       t * c.hidden_size});
  constexpr uint64_t kRowRoom = 192;  // elements [model/linear.cc]
  return 4 * floats + 2 * 2 * (rounded + t * (experts + 2) * kRowRoom);
}

}  // namespace cachalot::cli
