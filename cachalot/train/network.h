// SPDX-License-Identifier: Apache-2.0
// The whole model in training: forward with everything the backward pass needs, losses, backward.
// [V4 2; model.md 3-6; docs/design/train.md]
//
// Mode `exact`: nothing is rounded to the formats of inference, unless a run asks for it. T = float
// trains; T = double is the same source for gradient checks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cachalot/kernels/context.h"
#include "cachalot/model/config.h"
#include "cachalot/train/attention.h"
#include "cachalot/train/batch.h"
#include "cachalot/train/expert_exchange.h"
#include "cachalot/train/hyper.h"
#include "cachalot/train/parameters.h"
#include "cachalot/train/recompute.h"

namespace cachalot::train {

// What multiplies the gradient of each loss's sum. For means over a batch that is cut into several
// calls, divide by the counts of the whole batch.
struct LossScales {
  double ce = 0;       // of the sum over tokens with a target
  double mtp = 0;      // likewise
  double balance = 0;  // of the sum over samples and score-routed main layers
  double indexer = 0;  // of the sum over tokens and CSA layers
};

// Sums, and what they are sums over.
struct LossSums {
  double ce = 0;
  double mtp = 0;
  double balance = 0;
  double indexer = 0;
  size_t ce_tokens = 0;
  size_t mtp_tokens = 0;
  size_t samples = 0;
  size_t tokens = 0;

  double mean_ce() const { return ce / static_cast<double>(ce_tokens); }
  double mean_mtp() const { return mtp / static_cast<double>(mtp_tokens); }
  double mean_balance() const { return balance / static_cast<double>(samples); }
  double mean_indexer() const { return indexer / static_cast<double>(tokens); }
};

// Hard choices of a step: replayed to hold them fixed (finite differences, Anticipatory Routing,
// routing replay). Layers 0 .. L-1, then the MTP block. When replayed, empty `unbiased` or
// `entries` are chosen anew.
struct Selections {
  std::vector<std::vector<uint32_t>> experts;  // [layer][T A], ids ascending within a token
  // [layer][T A] the choice without bias, which the balance loss counts; empty where it does not.
  std::vector<std::vector<uint32_t>> unbiased;
  std::vector<EntrySelection> entries;  // [layer]; dense where there is no choice
};

// How products of matrices are formed; sums and everything else are float32.
enum class Precision : uint8_t {
  kFloat32,  // mode `exact`
  kBf16,  // operands rounded to BF16 where the target has the instruction; router and mHC float32
};

struct NetworkOptions {
  Precision precision = Precision::kFloat32;
  ResidualMap residual = ResidualMap::kSinkhorn;
  // Changes memory and time, never a bit. Without expert_gate_up where `experts` is set: making it
  // again would need the other ranks.
  RecomputeSet recompute;
  // Null: all routed experts are here. Else the set holds those of this rank, with a gradient for
  // each rank's tokens (Weight::GradientOf), and all ranks make the same calls of Run, or Serve.
  ExpertExchange* experts = nullptr;  // outlives the network
};

enum class CsaMode : uint8_t {
  kDense,   // every visible entry: the dense stage and the indexer's warm-up [report.md 7.2]
  kSparse,  // the index_topk the indexer chooses
};

struct RunOptions {
  LossScales scales;
  CsaMode csa = CsaMode::kSparse;
  bool backward = true;
  bool indexer_loss = false;
  // KV entries, index queries and index keys pass through their formats (activation_format.h);
  // float only.
  bool quantized_activations = false;
  const Selections* replay = nullptr;
  Selections* record = nullptr;
  // [layer][E] tokens that chose each expert are added, for the bias update; layers as Selections.
  std::vector<std::vector<uint64_t>>* expert_load = nullptr;
};

// Holds the activations of one batch; sized by the largest seen. `set` and what ctx points at
// outlive it. One caller at a time.
template <typename T>
class Network {
 public:
  Network(const model::Config& config, ParameterSetT<T>& set, const kernels::Context& ctx,
          const NetworkOptions& options = {});
  ~Network();

  // Adds the gradients of the scaled losses to those of the set. The bits depend on parameters,
  // batch and target only, not on threads. A batch with a token >= vocab_size, or without the
  // targets a loss needs, is a bug.
  LossSums Run(const TrainBatch& batch, const RunOptions& options);
  // In place of a Run with these options, for a rank without tokens: its experts are computed for
  // those of the other ranks. Needs an exchange.
  void Serve(const RunOptions& options);
  // CompositeGains of the main layers' maps in the last Run: two entries a layer.
  std::vector<double> ResidualGains() const;
  // Memory of what the main layers keep from forward to backward; PlanMemory counts it beforehand.
  size_t kept_bytes() const;
  // Memory that all layers share for what they make again; likewise.
  size_t recomputed_bytes() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cachalot::train
