// SPDX-License-Identifier: Apache-2.0
// Masters, moments and the optimizer's step of a model, dealt out to ranks: each parameter has one
// owner, and only that rank holds these of it. [V4 3.4.1; report.md 6.4; docs/design/train.md]
//
// Every call but the accessors is collective. A call that fails on one rank leaves the others
// waiting: its caller ends the job. One caller at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/comm/communicator.h"
#include "cachalot/kernels/context.h"
#include "cachalot/model/inventory.h"
#include "cachalot/train/export.h"
#include "cachalot/train/optimizer.h"
#include "cachalot/train/optimizer_shares.h"
#include "cachalot/train/parameters.h"
#include "cachalot/train/recipe.h"
#include "cachalot/train/run_state.h"

namespace cachalot::train {

class Masters {
 public:
  // As the recipe's seed starts them. `comm` and what ctx points at outlive it.
  static Result<std::unique_ptr<Masters>> Create(const Recipe& recipe, ExpertPlacement experts,
                                                 comm::Communicator& comm,
                                                 const kernels::Context& ctx);

  // What this rank computes with: values and gradients, both zero, and the tables.
  ParameterSet MakeWorking() const;
  // Names and shapes of all parameters; values where this rank owns them; all tables.
  const ParameterSet& set() const { return set_; }
  // Null if there is none or another rank owns it.
  Parameter* Find(std::string_view name);

  // Values of `working` where they are held: the masters', or what their export format makes of
  // them.
  void Publish(bool quantized, ParameterSet& working);
  // The owners' gradients become the sums over ranks of those of `working`, whose buffers move here
  // and back again: there is one set.
  void TakeGradients(ParameterSet& working);
  void ReturnGradients(ParameterSet& working);

  // Of the sums: the same bits on all ranks, however many there are.
  double GradientNorm() const;
  void ScaleGradients(float factor) { train::ScaleGradients(set_, factor, ctx_); }
  // The first tensor, value or gradient, that is not finite on any rank; empty if all are.
  std::string FirstNonFinite() const;
  // Each rank moves what it owns: together what one rank would do. `frozen` as Optimizer::Step.
  void Step(float lr, std::span<const uint8_t> frozen);
  // What Newton-Schulz computes in such a Step, on all ranks together.
  double NewtonSchulzFlop(std::span<const uint8_t> frozen) const;

  // Rank 0 writes what it gathers, one array at a time; any number of ranks can load it.
  Status Save(const std::string& path, const RunState& state);
  // Each rank reads the file and keeps what it owns.
  Result<RunState> Load(const std::string& path);
  // Rank 0 writes, as ExportCheckpoint.
  Status Export(const ExportOptions& options);

 private:
  Masters(const Recipe& recipe, comm::Communicator& comm, const kernels::Context& ctx)
      : recipe_(recipe), comm_(comm), ctx_(ctx) {}
  void RoundTrip(const model::StoredTensor& stored, const Parameter& master, Parameter& out);
  // On rank 0 an array of parameter i, valid until the next call; elsewhere empty.
  std::span<const float> OnFirstRank(size_t i, std::span<const float> mine);

  const Recipe recipe_;
  comm::Communicator& comm_;
  const kernels::Context ctx_;
  ParameterSet set_;
  RankShares shares_;
  std::unique_ptr<Optimizer> optimizer_;
  std::map<std::string, model::StoredTensor, std::less<>> stored_;  // in the released format
  AlignedBuffer<float> gathered_;
};

}  // namespace cachalot::train
