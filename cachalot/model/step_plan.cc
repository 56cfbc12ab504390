// SPDX-License-Identifier: Apache-2.0
#include "cachalot/model/step_plan.h"

#include <algorithm>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"

namespace cachalot::model {
namespace {

Status CheckIds(std::span<const uint32_t> ids, uint32_t vocab_size, std::string_view what) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= vocab_size) {
      return Error{ErrorCode::kInvalidArgument,
                   StrCat(what, " ", i, ": id ", ids[i], ", the vocabulary has ", vocab_size)};
    }
  }
  return {};
}

Status CheckInput(const SequenceInput& input, const Config& config) {
  CACHALOT_CHECK(input.sequence != nullptr);
  if (input.tokens.empty()) {
    return Error{ErrorCode::kInvalidArgument, "a sequence in a step needs at least one token"};
  }
  if (!input.mtp_next.empty() && input.mtp_next.size() != input.tokens.size()) {
    return Error{ErrorCode::kInvalidArgument, StrCat("mtp_next has ", input.mtp_next.size(),
                                                     " ids for ", input.tokens.size(), " tokens")};
  }
  const uint64_t end = uint64_t{input.sequence->position()} + input.tokens.size();
  if (end > config.max_position_embeddings) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("position ", end, " is beyond max_position_embeddings ",
                        config.max_position_embeddings)};
  }
  CACHALOT_RETURN_IF_ERROR(CheckIds(input.tokens, config.vocab_size, "token"));
  return CheckIds(input.mtp_next, config.vocab_size, "MTP token");
}

}  // namespace

void StepPlan::Reserve(uint32_t max_tokens, uint32_t max_sequences) {
  tokens.reserve(max_tokens);
  positions.reserve(max_tokens);
  mtp_next.reserve(max_tokens);
  tiles.reserve(max_tokens / kAttentionTile + 1);
  // A tile of n tokens over s sequences has at most ceil(n / 16) waves, and s costs none extra.
  waves.reserve(max_tokens / kvcache::kMaxRewind + tiles.capacity() + max_sequences);
  wave_rows.reserve(max_tokens);
}

Status StepPlan::Build(std::span<const SequenceInput> inputs, const Config& config,
                       const ForwardOptions& options) {
  if (inputs.size() > options.max_step_sequences) {
    return Error{
        ErrorCode::kInvalidArgument,
        StrCat(inputs.size(), " sequences in a step of at most ", options.max_step_sequences)};
  }
  size_t num_tokens = 0;
  for (const SequenceInput& input : inputs) {
    CACHALOT_RETURN_IF_ERROR(CheckInput(input, config));
    num_tokens += input.tokens.size();
  }
  if (num_tokens > options.max_step_tokens) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(num_tokens, " tokens in a step of at most ", options.max_step_tokens)};
  }

  tokens.clear();
  positions.clear();
  mtp_next.clear();
  for (const SequenceInput& input : inputs) {
    for (size_t i = 0; i < input.tokens.size(); ++i) {
      const uint32_t position = input.sequence->position() + static_cast<uint32_t>(i);
      tokens.push_back({input.tokens[i], position, input.sequence});
      positions.push_back(position);
    }
    mtp_next.insert(mtp_next.end(), input.mtp_next.begin(), input.mtp_next.end());
  }
  AppendTiles();
  return {};
}

Status StepPlan::Keep(std::span<const uint32_t> rows, std::span<const uint32_t> next,
                      const Config& config) {
  CACHALOT_CHECK(rows.size() == next.size());
  CACHALOT_RETURN_IF_ERROR(CheckIds(next, config.vocab_size, "MTP token"));
  for (size_t i = 0; i < rows.size(); ++i) {
    CACHALOT_CHECK(rows[i] < tokens.size() && (i == 0 || rows[i - 1] < rows[i]));
    tokens[i] = tokens[rows[i]];
    positions[i] = positions[rows[i]];
  }
  tokens.resize(rows.size());
  positions.resize(rows.size());
  mtp_next.assign(next.begin(), next.end());
  AppendTiles();
  return {};
}

void StepPlan::AppendTiles() {
  tiles.clear();
  waves.clear();
  wave_rows.clear();
  const auto total = static_cast<uint32_t>(tokens.size());
  for (uint32_t begin = 0; begin < total; begin += kAttentionTile) {
    AppendTile(begin, std::min(kAttentionTile, total - begin));
  }
}

void StepPlan::AppendTile(uint32_t begin, uint32_t count) {
  Tile tile{.begin = begin, .count = count, .first_wave = static_cast<uint32_t>(waves.size())};
  for (uint32_t wave_idx = 0, done = 0; done < count; ++wave_idx) {
    Wave wave{.begin = static_cast<uint32_t>(wave_rows.size())};
    // Runs of one sequence; of each, the wave_idx-th stretch of kMaxRewind tokens.
    for (uint32_t run = begin; run < begin + count;) {
      uint32_t run_end = run;
      while (run_end < begin + count && tokens[run_end].sequence == tokens[run].sequence) ++run_end;
      const uint32_t first = std::min(run + wave_idx * kvcache::kMaxRewind, run_end);
      const uint32_t last = std::min(first + kvcache::kMaxRewind, run_end);
      for (uint32_t row = first; row < last; ++row) wave_rows.push_back(row);
      run = run_end;
    }
    wave.count = static_cast<uint32_t>(wave_rows.size()) - wave.begin;
    done += wave.count;
    waves.push_back(wave);
  }
  tile.num_waves = static_cast<uint32_t>(waves.size()) - tile.first_wave;
  tiles.push_back(tile);
}

}  // namespace cachalot::model
