// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/masters.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/train/rank_exchange.h"
#include "cachalot/train/weight_format.h"

namespace cachalot::train {

Result<std::unique_ptr<Masters>> Masters::Create(const Recipe& recipe, ExpertPlacement experts,
                                                 comm::Communicator& comm,
                                                 const kernels::Context& ctx) {
  std::unique_ptr<Masters> masters(new Masters(recipe, comm, ctx));
  ParameterSet& set = masters->set_;
  CACHALOT_TRY(set, ListParameters(recipe.model));
  const std::vector<OptimizerRule> rules = RulesFor(recipe.model, set, recipe.optimizer);
  masters->shares_ =
      ShareParameters(set, rules, recipe.model.n_routed_experts, comm.size(), experts);
  for (size_t i = 0; i < set.parameters.size(); ++i) {
    Parameter& p = set.parameters[i];
    if (masters->shares_.owners[i] == comm.rank()) p.value = AlignedBuffer<float>(p.size());
  }
  InitializeParameters(recipe.model, recipe.seed, set,
                       recipe.residual == ResidualMap::kUnconstrained);
  masters->optimizer_ = std::make_unique<Optimizer>(recipe.model, set, recipe.optimizer);
  model::Config released = recipe.model;
  released.quantized = true;
  released.expert_dtype = model::ExpertDtype::kFp4;
  for (model::StoredTensor& t : model::ListTensors(released)) {
    masters->stored_[t.name] = std::move(t);
  }
  return masters;
}

ParameterSet Masters::MakeWorking() const {
  ParameterSet working;
  working.tables = set_.tables;
  for (size_t i = 0; i < set_.parameters.size(); ++i) {
    const Parameter& p = set_.parameters[i];
    Parameter& out = working.parameters.emplace_back();
    out.name = p.name;
    out.rows = p.rows;
    out.cols = p.cols;
    const bool distributed = shares_.replicated[i] == 0;
    if (distributed && !p.held()) continue;
    out.value = AlignedBuffer<float>(p.size());
    out.grad = AlignedBuffer<float>(p.size() * (distributed ? comm_.size() : 1));
  }
  return working;
}

Parameter* Masters::Find(std::string_view name) {
  Parameter* found = set_.Find(name);
  return found != nullptr && found->held() ? found : nullptr;
}

// The format a tensor is exported in, and back.
void Masters::RoundTrip(const model::StoredTensor& stored, const Parameter& master,
                        Parameter& out) {
  const MatView<const float> from(master.value.data(), master.rows, master.cols);
  const MatView<float> to(out.value.data(), out.rows, out.cols);
  if (stored.dtype == DType::kI8) return RoundTripFp4Weights(from, to, ctx_);
  if (stored.dtype == DType::kF8E4M3) return RoundTripFp8Weights(from, to, ctx_);
  if (stored.dtype == DType::kBF16) return RoundTripBf16Weights(from, to, ctx_);
  std::ranges::copy(master.value.span(), out.value.data());
}

void Masters::Publish(bool quantized, ParameterSet& working) {
  for (size_t i = 0; i < set_.parameters.size(); ++i) {
    const Parameter& master = set_.parameters[i];
    Parameter& out = working.parameters[i];
    if (!master.held()) continue;
    if (quantized) {
      RoundTrip(stored_.find(master.name)->second, master, out);
    } else {
      std::ranges::copy(master.value.span(), out.value.data());
    }
  }
  ShareValues(working, shares_, comm_);
}

void Masters::TakeGradients(ParameterSet& working) {
  SumGradientsAtOwners(working, shares_, comm_, ctx_);
  ReturnGradients(working);
}

void Masters::ReturnGradients(ParameterSet& working) {
  for (size_t i = 0; i < set_.parameters.size(); ++i) {
    std::swap(set_.parameters[i].grad, working.parameters[i].grad);
  }
}

double Masters::GradientNorm() const {
  std::vector<double> squares = GradientSquares(set_, ctx_);
  comm_.ExactSum(squares);
  return NormOf(squares);
}

std::string Masters::FirstNonFinite() const {
  const auto mine = train::FirstNonFinite(set_, ctx_);
  // 2 + 2 parameter + gradient of each rank; 0: all finite.
  std::vector<double> found(comm_.size());
  if (mine) found[comm_.rank()] = static_cast<double>(2 + 2 * mine->parameter + mine->gradient);
  comm_.ExactSum(found);
  std::erase(found, 0.0);
  if (found.empty()) return {};
  const auto first = static_cast<size_t>(*std::ranges::min_element(found));
  return StrCat(set_.parameters[first / 2 - 1].name, first % 2 != 0 ? " (gradient)" : "");
}

void Masters::Step(float lr, std::span<const uint8_t> frozen) {
  optimizer_->Step(set_, lr, frozen, ctx_);
}

double Masters::NewtonSchulzFlop(std::span<const uint8_t> frozen) const {
  double flop[1] = {optimizer_->NewtonSchulzFlop(frozen)};
  comm_.ExactSum(flop);  // whole numbers
  return flop[0];
}

std::span<const float> Masters::OnFirstRank(size_t i, std::span<const float> mine) {
  return GatherOnFirstRank(mine, set_.parameters[i].size(), shares_.owners[i], comm_, gathered_);
}

Status Masters::Save(const std::string& path, const RunState& state) {
  std::optional<RunWriter> writer;
  if (comm_.rank() == 0) {
    CACHALOT_TRY(RunWriter created, RunWriter::Create(path, state, set_, *optimizer_));
    writer.emplace(std::move(created));
  }
  const auto append = [&](size_t i, std::span<const float> mine) {
    const std::span<const float> array = OnFirstRank(i, mine);
    return writer ? writer->Append(array) : Status();
  };
  for (size_t i = 0; i < set_.parameters.size(); ++i) {
    const OptimizerState& moments = optimizer_->state()[i];
    const uint32_t num_moments = NumMoments(optimizer_->rules()[i]);
    CACHALOT_RETURN_IF_ERROR(append(i, set_.parameters[i].value.span()));
    if (num_moments > 0) CACHALOT_RETURN_IF_ERROR(append(i, moments.first.span()));
    if (num_moments > 1) CACHALOT_RETURN_IF_ERROR(append(i, moments.second.span()));
  }
  return writer ? writer->Finish(set_) : Status();
}

Result<RunState> Masters::Load(const std::string& path) { return LoadRun(path, set_, *optimizer_); }

Status Masters::Export(const ExportOptions& options) {
  const auto value = [&](size_t i) { return OnFirstRank(i, set_.parameters[i].value.span()); };
  if (comm_.rank() == 0) {
    return ExportCheckpoint(recipe_.model, set_, options, ctx_, value);
  }
  for (size_t i = 0; i < set_.parameters.size(); ++i) value(i);
  return {};
}

}  // namespace cachalot::train
