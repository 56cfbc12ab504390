// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/bench_stepper.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <numeric>

#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/eval/bench_fill.h"

namespace cachalot::eval {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kTextSeed = 1;  // of the ids that are read
constexpr uint64_t kFillSeed = 2;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

uint32_t MostSequences(const BenchOptions& options) {
  return std::max(1u, *std::ranges::max_element(options.batches));
}

// Enough for the deepest context and for the widest batch at the first one.
size_t NumBlocks(const BenchOptions& options) {
  const auto blocks = [](uint64_t tokens) {
    return (tokens + kRoundTokens) / kvcache::kBlockTokens + 1;
  };
  return std::max<size_t>(blocks(options.contexts.back()),
                          MostSequences(options) * blocks(options.contexts.front()));
}

}  // namespace

ExpertCounter::ExpertCounter(const model::Config& config, uint32_t max_tokens)
    : num_experts_(config.n_routed_experts),
      ids_(config.num_hidden_layers),
      views_(config.num_hidden_layers),
      seen_(num_experts_) {
  for (std::vector<uint32_t>& ids : ids_) {
    ids.resize(size_t{max_tokens} * config.num_experts_per_tok);
  }
  for (MatView<uint32_t>& view : views_) view.cols = config.num_experts_per_tok;
}

std::span<const MatView<uint32_t>> ExpertCounter::Views(uint32_t num_tokens) {
  for (size_t l = 0; l < views_.size(); ++l) {
    views_[l] = {ids_[l].data(), num_tokens, views_[l].cols};
  }
  return views_;
}

void ExpertCounter::Count() {
  for (const MatView<uint32_t>& view : views_) {
    ++stamp_;
    for (size_t i = 0; i < view.rows * view.cols; ++i) {
      uint32_t& seen = seen_[view.data[i]];
      if (seen != stamp_) ++distinct_;
      seen = stamp_;
    }
    ++steps_;
  }
}

double ExpertCounter::mean() const {
  return steps_ == 0 ? 0.0 : static_cast<double>(distinct_) / static_cast<double>(steps_);
}

Stepper::Stepper(std::shared_ptr<const model::Weights> weights, const BenchOptions& options,
                 ThreadPool& pool)
    : weights_(std::move(weights)),
      options_(options),
      pool_(pool),
      vocab_(weights_->config.vocab_size),
      experts_(weights_->config, std::max(options.chunk, MostSequences(options))),
      sampler_(vocab_) {}

Result<std::unique_ptr<Stepper>> Stepper::Create(std::shared_ptr<const model::Weights> weights,
                                                 const BenchOptions& options, ThreadPool& pool) {
  try {
    std::unique_ptr<Stepper> s(new Stepper(weights, options, pool));
    const auto spec = weights->config.kv_spec(model::KvFormatOf(options.numerics), false);
    CACHALOT_TRY(s->blocks_, kvcache::BlockPool::Create(spec, NumBlocks(options)));
    const uint32_t batch = MostSequences(options);
    CACHALOT_TRY(s->forward_,
                 model::Forward::Create(std::move(weights),
                                        {.numerics = options.numerics,
                                         .max_step_tokens = std::max(options.chunk, batch),
                                         .max_step_sequences = batch,
                                         .profile = &s->profile_},
                                        {.pool = &pool, .target = options.target}));
    s->rows_.resize(batch);
    std::iota(s->rows_.begin(), s->rows_.end(), 0u);
    s->logits_.resize(size_t{batch} * s->vocab_);
    s->chunk_ids_.resize(options.chunk);
    return s;
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kResourceExhausted, "no memory for the benchmark's buffers"};
  }
}

Status Stepper::MakeSequences(uint32_t count) {
  sequences_.clear();
  inputs_.clear();
  next_ids_.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    CACHALOT_TRY(auto sequence, kvcache::Sequence::Create(*blocks_));
    sequences_.push_back(std::move(sequence));
    inputs_.push_back({.sequence = sequences_.back().get(), .tokens = {&next_ids_[i], 1}});
    next_ids_[i] = static_cast<uint32_t>(CounterRandom(kTextSeed, 1, i) % vocab_);
  }
  return {};
}

Status Stepper::Fill(uint32_t context) {
  for (size_t i = 0; i < sequences_.size(); ++i) {
    sequences_[i]->Reset();
    CACHALOT_RETURN_IF_ERROR(
        FillSequence(*sequences_[i], blocks_->spec(), context, kFillSeed + i, pool_));
  }
  return {};
}

Result<double> Stepper::Read(uint32_t context) {
  kvcache::Sequence& sequence = *sequences_[0];
  double seconds = 0;
  while (sequence.position() < context) {
    const uint32_t first = sequence.position();
    const uint32_t n = std::min(options_.chunk, context - first);
    for (uint32_t i = 0; i < n; ++i) {
      chunk_ids_[i] = static_cast<uint32_t>(CounterRandom(kTextSeed, 0, first + i) % vocab_);
    }
    const uint32_t last = n - 1;
    model::ForwardOutputs outputs{.experts = experts_.Views(n)};
    if (first + n == context) {
      outputs.logit_rows = {&last, 1};
      outputs.logits = {logits_.data(), 1, vocab_};
    }
    const model::SequenceInput input{.sequence = &sequence,
                                     .tokens = std::span(chunk_ids_).first(n)};
    const auto begin = Clock::now();
    CACHALOT_RETURN_IF_ERROR(sequence.Reserve(n));
    CACHALOT_RETURN_IF_ERROR(forward_->Step({&input, 1}, outputs));
    sequence.Advance(n);
    seconds += SecondsSince(begin);
    experts_.Count();
  }
  return seconds;
}

Status Stepper::DecodeStep(uint64_t seed) {
  const size_t batch = sequences_.size();
  for (const auto& sequence : sequences_) CACHALOT_RETURN_IF_ERROR(sequence->Reserve(1));
  model::ForwardOutputs outputs{.logit_rows = std::span(rows_).first(batch),
                                .logits = {logits_.data(), batch, vocab_},
                                .experts = experts_.Views(static_cast<uint32_t>(batch))};
  CACHALOT_RETURN_IF_ERROR(forward_->Step(inputs_, outputs));
  for (size_t i = 0; i < batch; ++i) {
    sequences_[i]->Advance(1);
    sampling_.seed = seed + i;
    next_ids_[i] =
        sampler_.Sample({logits_.data() + i * vocab_, vocab_}, {.prompt = {}, .generated = {}},
                        sampling_, sequences_[i]->position(), nullptr);
  }
  return {};
}

Status Stepper::Decode(uint32_t rounds, std::vector<double>& step_s) {
  for (uint32_t round = 0; round < rounds; ++round) {
    // Other noise each round, so that they are other tokens and other experts.
    const uint64_t seed = ++round_ << 16;
    for (uint32_t i = 0; i < kRoundTokens; ++i) {
      const auto begin = Clock::now();
      CACHALOT_RETURN_IF_ERROR(DecodeStep(seed));
      step_s.push_back(SecondsSince(begin));
      experts_.Count();
    }
    for (const auto& sequence : sequences_) {
      CACHALOT_RETURN_IF_ERROR(sequence->Rewind(kRoundTokens));
    }
  }
  return {};
}

uint64_t Stepper::kv_bytes() const {
  return blocks_->bytes_in_use() + sequences_.size() * blocks_->spec().state_bytes();
}

}  // namespace cachalot::eval
