// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/trainer.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/model/inventory.h"
#include "cachalot/train/evaluation.h"
#include "cachalot/train/export.h"
#include "cachalot/train/gradient_tree.h"
#include "cachalot/train/masters.h"
#include "cachalot/train/network.h"
#include "cachalot/train/run_state.h"
#include "cachalot/train/training_data.h"

namespace cachalot::train {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

bool IsIndexer(std::string_view name) { return name.find(".indexer.") != std::string_view::npos; }
bool IsHyperMap(std::string_view name) {
  return name.find(".hc_attn_") != std::string_view::npos ||
         name.find(".hc_ffn_") != std::string_view::npos;
}

// Weights of matrices that multiply a token: of routed experts the chosen ones, the head once more
// for the MTP block, the embedding never.
uint64_t ActingWeights(const model::Config& c) {
  uint64_t routed = 0, others = 0;
  for (const model::StoredTensor& t : model::ListTensors(c)) {
    if (t.shape.size() != 2 || t.dtype == DType::kI64 || t.name == "embed.weight" ||
        t.name.ends_with(".ape")) {
      continue;
    }
    const uint64_t size = t.shape[0] * t.shape[1];
    if (t.name.find(".ffn.experts.") != std::string::npos) {
      routed += size;
    } else {
      others += t.name == "head.weight" ? size * (1 + c.num_draft_layers()) : size;
    }
  }
  return others + routed / c.n_routed_experts * c.num_experts_per_tok;
}

constexpr size_t kSlotLosses = 4;  // of a micro-batch: next token, MTP, balance, indexer

// The micro-batches of a rank: `begin` and after, `count` of them. The last ones may not exist:
// then the rank has nothing to do while others have.
struct SlotRange {
  size_t begin = 0;
  size_t count = 0;
};

size_t CountTargets(const std::vector<uint32_t>& targets) {
  return targets.size() -
         static_cast<size_t>(std::count(targets.begin(), targets.end(), kNoTarget));
}

}  // namespace

EvaluationSet EvaluationSetOf(const Recipe& recipe, std::shared_ptr<const Dataset> validation,
                              uint64_t step) {
  return {.data = std::move(validation),
          .seed = recipe.seed,
          .sequence_length = StageAt(recipe.schedule, step).sequence_length,
          .tokens = recipe.evaluation.tokens};
}

class Trainer::Impl {
 public:
  Impl(const Recipe& recipe, const TrainerOptions& options, const kernels::Context& ctx)
      : recipe_(recipe), options_(options), ctx_(ctx), alone_(comm::SingleRank()) {
    if (options_.comm == nullptr) options_.comm = alone_.get();
  }

  Status Open();
  Result<StepMetrics> Step();
  Status Save();
  Result<std::optional<double>> Evaluate();
  double flop_per_token() const { return flop_per_token_; }
  uint64_t step() const { return step_; }
  bool can_save() const { return !anticipating() || steps_since_anticipated() == 0; }
  const Schedule& schedule() const { return recipe_.schedule; }
  Status Export(const ExportOptions& options) { return masters_->Export(options); }
  const ParameterSet& parameters() const { return masters_->set(); }

 private:
  std::string checkpoint_dir() const { return options_.run_dir + "/checkpoints"; }
  bool anticipating() const { return step_ < std::min(anticipate_until_, schedule().steps); }
  uint64_t steps_since_anticipated() const {
    return (step_ - anticipate_from_) % recipe_.stability.anticipate_lag;
  }
  bool quantized(uint64_t step) const {
    return recipe_.precision.qat && step >= recipe_.precision.qat_from_step;
  }
  Status OpenMetrics();
  Status Resume();
  Status StartFrom(const std::string& run_dir);
  Status Restore(const std::string& checkpoint);
  void Anticipate();
  bool IsSpike(double loss);
  Result<StepMetrics> RollBack(const std::string& checkpoint, const StepMetrics& spike);
  bool distributes_experts() const {
    return options_.experts == ExpertPlacement::kDistributed && options_.comm->size() > 1;
  }
  bool first_rank() const { return options_.comm->rank() == 0; }
  SlotRange OwnSlots(size_t num_batches) const;
  LossSums RunSlot(const std::vector<TrainBatch>& batches, size_t slot, const RunOptions& run);
  LossSums AccumulateGradients(const std::vector<TrainBatch>& batches, AttentionMode mode);
  void SumLossesAndLoads(std::vector<double>& slot_losses, LossSums& all);
  std::vector<uint8_t> Frozen(AttentionMode mode) const;
  std::vector<double> MoveRouterBiases();
  Status Finish(StepMetrics& metrics);
  Result<LossSums> EvaluateNetwork(const EvaluationSet& set, AttentionMode mode);
  Result<LossSums> EvaluateExported(const EvaluationSet& set);

  Recipe recipe_;
  TrainerOptions options_;
  kernels::Context ctx_;
  std::unique_ptr<comm::Communicator> alone_;
  GradientTree tree_;
  std::optional<TrainingData> data_;
  std::unique_ptr<Masters> masters_;
  // What the network computes on: the masters' values, or what their export format makes of them.
  // Gradients are its own and move to the masters for the optimizer (straight-through estimate).
  ParameterSet working_;
  std::optional<ExpertExchange> exchange_;  // if experts are distributed
  std::unique_ptr<Network<float>> network_;
  std::optional<MetricsWriter> metrics_;
  std::vector<std::vector<uint64_t>> expert_load_;
  uint64_t step_ = 0;
  uint64_t tokens_ = 0;
  bool checkpoint_due_ = false;
  SpikeDetector spikes_;
  uint64_t anticipate_from_ = 0, anticipate_until_ = 0;
  uint64_t rolled_back_from_ = 0;  // 1 + the step of the spike, until it is in the metrics; 0: none
  std::vector<std::vector<Selections>> anticipated_;  // [step since it was computed][micro-batch]
  double flop_per_token_ = 0;
};

Status Trainer::Impl::Open() {
  if (recipe_.residual == ResidualMap::kSinkhorn) {
    CACHALOT_RETURN_IF_ERROR(CheckExport(recipe_.model, ExportFormat::kReleased));
  }
  if (distributes_experts() && recipe_.memory.recompute.contains(Recomputable::kExpertGateUp)) {
    return Error{ErrorCode::kInvalidArgument,
                 "[memory].recompute has \"expert_gate_up\", which distributed experts cannot make "
                 "again without the other ranks; leave it out, or train with --experts replicated"};
  }
  CACHALOT_TRY(data_, TrainingData::Open(recipe_));
  std::error_code ec;
  fs::create_directories(checkpoint_dir(), ec);
  if (ec) {
    return Error{ErrorCode::kIo, StrCat(checkpoint_dir(), ": cannot create: ", ec.message())};
  }
  CACHALOT_TRY(masters_, Masters::Create(recipe_, options_.experts, *options_.comm, ctx_));
  CACHALOT_RETURN_IF_ERROR(Resume());
  working_ = masters_->MakeWorking();
  if (distributes_experts()) {
    exchange_.emplace(recipe_.model.n_routed_experts, *options_.comm);
  }
  network_ = std::make_unique<Network<float>>(
      recipe_.model, working_, ctx_,
      NetworkOptions{.precision = recipe_.precision.products,
                     .residual = recipe_.residual,
                     .recompute = recipe_.memory.recompute,
                     .experts = exchange_ ? &*exchange_ : nullptr});
  expert_load_.assign(recipe_.model.num_hidden_layers + recipe_.model.num_draft_layers(),
                      std::vector<uint64_t>(recipe_.model.n_routed_experts));
  flop_per_token_ = 6.0 * static_cast<double>(ActingWeights(recipe_.model));
  return {};
}

// At the first step: it drops the rows of steps to be taken again, and who only looks at a run, as
// an export beside a running trainer does, must not.
Status Trainer::Impl::OpenMetrics() {
  if (!first_rank()) return {};
  CACHALOT_TRY(MetricsWriter writer, MetricsWriter::Open(options_.run_dir, step_));
  metrics_.emplace(std::move(writer));
  return {};
}

Status Trainer::Impl::Resume() {
  const auto latest = LatestRun(checkpoint_dir());
  if (latest.ok()) return Restore(*latest);
  if (latest.error().code != ErrorCode::kNotFound) return latest.error();
  return recipe_.start_from.empty() ? Status() : StartFrom(recipe_.start_from);
}

// Of the other run nothing but parameters and optimizer state: steps, data and spikes are anew.
Status Trainer::Impl::StartFrom(const std::string& run_dir) {
  const auto latest = LatestRun(run_dir + "/checkpoints");
  if (!latest.ok()) {
    return Error{latest.error().code, StrCat("start_from = \"", run_dir, "\": ",
                                             latest.error().message, "; train that run first")};
  }
  const auto state = masters_->Load(*latest);
  return state.ok() ? Status() : Status(state.error());
}

Status Trainer::Impl::Restore(const std::string& checkpoint) {
  CACHALOT_TRY(const RunState state, masters_->Load(checkpoint));
  if (state.recipe != options_.recipe_text) {
    return Error{
        ErrorCode::kInvalidArgument,
        StrCat(checkpoint, ": was made with another recipe; take that one, or another --out")};
  }
  CACHALOT_RETURN_IF_ERROR(data_->Seek(state.step, state.data));
  step_ = state.step;
  tokens_ = state.tokens;
  const auto number = [&](const char* name) {
    const auto found = state.numbers.find(name);
    return found == state.numbers.end() ? 0 : found->second;
  };
  spikes_.Load(state.numbers);
  anticipate_from_ = number("anticipate.from");
  anticipate_until_ = number("anticipate.until");
  rolled_back_from_ = number("anticipate.spike");
  return {};
}

// Each rank has an aligned range of the tree's leaves, of the same size, and takes as many turns as
// the first, which has most: with distributed experts they go side by side.
SlotRange Trainer::Impl::OwnSlots(size_t num_batches) const {
  const size_t ranks = options_.comm->size();
  const size_t share = std::max(std::bit_ceil(num_batches), ranks) / ranks;
  return {.begin = options_.comm->rank() * share, .count = std::min(share, num_batches)};
}

LossSums Trainer::Impl::RunSlot(const std::vector<TrainBatch>& batches, size_t slot,
                                const RunOptions& run) {
  if (slot < batches.size()) return network_->Run(batches[slot], run);
  if (exchange_) network_->Serve(run);
  return {};
}

LossSums Trainer::Impl::AccumulateGradients(const std::vector<TrainBatch>& batches,
                                            AttentionMode mode) {
  LossSums all;
  for (const TrainBatch& batch : batches) {
    all.ce_tokens += CountTargets(batch.targets);
    all.mtp_tokens += CountTargets(batch.mtp_targets);
    all.samples += batch.num_samples();
    all.tokens += batch.num_tokens();
  }
  const auto mean = [](double weight, size_t count) {
    return count == 0 ? 0.0 : weight / static_cast<double>(count);
  };
  const bool warmup = mode == AttentionMode::kIndexerWarmup;
  RunOptions run;
  run.csa = mode == AttentionMode::kSparse ? CsaMode::kSparse : CsaMode::kDense;
  run.indexer_loss = mode != AttentionMode::kDense;
  run.quantized_activations = quantized(step_);
  run.expert_load = &expert_load_;
  run.scales.ce = warmup ? 0.0 : mean(1.0, all.ce_tokens);
  run.scales.mtp = warmup ? 0.0 : mean(MtpWeight(schedule(), step_), all.mtp_tokens);
  run.scales.balance = warmup ? 0.0 : mean(double{recipe_.loss.balance_weight}, all.samples);
  run.scales.indexer = run.indexer_loss ? mean(1.0, all.tokens) : 0.0;
  for (auto& layer : expert_load_) std::fill(layer.begin(), layer.end(), uint64_t{0});
  std::vector<double> slot_losses(kSlotLosses * batches.size());
  const SlotRange slots = OwnSlots(batches.size());
  const auto run_slot = [&](size_t i) {
    const size_t slot = slots.begin + i;
    const bool exists = slot < batches.size();
    if (exists && anticipating()) run.replay = &anticipated_[steps_since_anticipated()][slot];
    const LossSums sums = RunSlot(batches, slot, run);
    const double losses[kSlotLosses] = {sums.ce, sums.mtp, sums.balance, sums.indexer};
    if (exists) std::ranges::copy(losses, &slot_losses[kSlotLosses * slot]);
  };
  tree_.Sum(working_, slots.count, run_slot, ctx_);
  SumLossesAndLoads(slot_losses, all);
  return all;
}

// Over ranks; losses in the order of the micro-batches, each filled by one rank.
void Trainer::Impl::SumLossesAndLoads(std::vector<double>& slot_losses, LossSums& all) {
  comm::Communicator& comm = *options_.comm;
  comm.ExactSum(slot_losses);
  for (size_t at = 0; at < slot_losses.size(); at += kSlotLosses) {
    all.ce += slot_losses[at];
    all.mtp += slot_losses[at + 1];
    all.balance += slot_losses[at + 2];
    all.indexer += slot_losses[at + 3];
  }
  for (std::vector<uint64_t>& layer : expert_load_) {
    std::vector<double> load(layer.begin(), layer.end());
    comm.ExactSum(load);
    std::ranges::transform(load, layer.begin(),
                           [](double count) { return static_cast<uint64_t>(count); });
  }
}

// The routing of the next anticipate_lag steps for this rank's micro-batches, by the parameters of
// now. The gate weights are still computed at each step: only the choice is old. [report.md 7.5]
void Trainer::Impl::Anticipate() {
  TrainingData ahead = *data_;
  RunOptions run;
  run.backward = false;
  run.quantized_activations = quantized(step_);
  anticipated_.clear();
  const uint64_t end = std::min(step_ + recipe_.stability.anticipate_lag, schedule().steps);
  for (uint64_t step = step_; step < end; ++step) {
    const bool sparse = StageAt(schedule(), step).attention == AttentionMode::kSparse;
    run.csa = sparse ? CsaMode::kSparse : CsaMode::kDense;
    const std::vector<TrainBatch> batches = ahead.Read(step);
    std::vector<Selections>& selections = anticipated_.emplace_back(batches.size());
    const SlotRange slots = OwnSlots(batches.size());
    for (size_t slot = slots.begin; slot < slots.begin + slots.count; ++slot) {
      run.record = slot < batches.size() ? &selections[slot] : nullptr;
      RunSlot(batches, slot, run);
      if (run.record == nullptr) continue;
      run.record->unbiased.clear();
      run.record->entries.clear();
    }
  }
}

bool Trainer::Impl::IsSpike(double loss) {
  const bool jump = StageAt(schedule(), step_).from_step == step_ ||
                    (recipe_.precision.qat && recipe_.precision.qat_from_step == step_);
  if (jump) spikes_.Reset();
  return spikes_.Take(loss, recipe_.stability.spike_deviations) && !anticipating();
}

// Saved at once: a run that is killed after this must go on in the same way.
Result<StepMetrics> Trainer::Impl::RollBack(const std::string& checkpoint,
                                            const StepMetrics& spike) {
  CACHALOT_RETURN_IF_ERROR(Restore(checkpoint));
  anticipate_from_ = step_;
  anticipate_until_ = step_ + recipe_.stability.anticipate_steps;
  rolled_back_from_ = spike.step + 1;
  options_.comm->Barrier();  // all have read what rank 0 is about to replace
  CACHALOT_RETURN_IF_ERROR(OpenMetrics());
  CACHALOT_RETURN_IF_ERROR(Save());
  return spike;
}

// What has no gradients keeps its values: decay alone would shrink it.
std::vector<uint8_t> Trainer::Impl::Frozen(AttentionMode mode) const {
  const std::vector<Parameter>& parameters = masters_->set().parameters;
  std::vector<uint8_t> frozen(parameters.size());
  for (size_t i = 0; i < frozen.size(); ++i) {
    const bool indexer = IsIndexer(parameters[i].name);
    if (mode == AttentionMode::kDense) frozen[i] = indexer ? 1 : 0;
    if (mode == AttentionMode::kIndexerWarmup) frozen[i] = indexer ? 0 : 1;
    const bool unused = recipe_.residual == ResidualMap::kIdentity;
    if (unused && IsHyperMap(parameters[i].name)) frozen[i] = 1;
  }
  return frozen;
}

// b_i rises where fewer tokens than the mean came, falls where more. [V4 4.2.2; V3 2.1.2]
// Returns each layer's largest load over the mean.
std::vector<double> Trainer::Impl::MoveRouterBiases() {
  const model::Config& c = recipe_.model;
  std::vector<double> loads;
  for (uint32_t l = 0; l < expert_load_.size(); ++l) {
    const std::vector<uint64_t>& load = expert_load_[l];
    uint64_t sum = 0;
    for (const uint64_t count : load) sum += count;
    const double mean = static_cast<double>(sum) / c.n_routed_experts;
    const uint64_t largest = *std::max_element(load.begin(), load.end());
    loads.push_back(mean > 0 ? static_cast<double>(largest) / mean : 0.0);
    const std::string name =
        l < c.num_hidden_layers ? StrCat("layers.", l, ".ffn.gate.bias") : "mtp.0.ffn.gate.bias";
    Parameter* bias = masters_->Find(name);
    if (bias == nullptr) continue;  // a hash layer, or another rank moves it
    for (size_t e = 0; e < load.size(); ++e) {
      const auto count = static_cast<double>(load[e]);
      if (count < mean) bias->value[e] += recipe_.loss.bias_speed;
      if (count > mean) bias->value[e] -= recipe_.loss.bias_speed;
    }
  }
  return loads;
}

Result<StepMetrics> Trainer::Impl::Step() {
  const auto start = Clock::now();
  const AttentionMode mode = StageAt(schedule(), step_).attention;
  if (!metrics_) CACHALOT_RETURN_IF_ERROR(OpenMetrics());
  masters_->Publish(quantized(step_), working_);
  if (anticipating() && can_save()) Anticipate();
  const std::vector<TrainBatch> batches = data_->Read(step_);
  const LossSums sums = AccumulateGradients(batches, mode);
  masters_->TakeGradients(working_);
  const double norm = masters_->GradientNorm();
  const double loss = sums.ce_tokens > 0 ? sums.mean_ce() : 0.0;
  if (!std::isfinite(norm) || !std::isfinite(loss)) {
    const std::string bad = masters_->FirstNonFinite();
    return Error{ErrorCode::kDataCorruption,
                 StrCat("step ", step_, ": the loss is ", loss, " and the gradient norm ", norm,
                        bad.empty() ? "" : ", first in ", bad,
                        "; lower the learning rate or go on from an earlier checkpoint")};
  }
  StepMetrics m{.step = step_, .loss = loss, .gradient_norm = norm};
  if (IsSpike(loss)) {
    const auto checkpoint = LatestRun(checkpoint_dir());
    if (checkpoint.ok()) {
      masters_->ReturnGradients(working_);
      return RollBack(*checkpoint, m);
    }
  }
  if (recipe_.clip_norm > 0 && norm > double{recipe_.clip_norm}) {
    masters_->ScaleGradients(static_cast<float>(double{recipe_.clip_norm} / norm));
  }
  const double lr = LearningRate(schedule(), step_);
  const std::vector<uint8_t> frozen = Frozen(mode);
  masters_->Step(static_cast<float>(lr), frozen);
  m.learning_rate = lr;
  if (rolled_back_from_ > 0) m.rolled_back_from = rolled_back_from_ - 1;
  rolled_back_from_ = 0;
  if (mode != AttentionMode::kIndexerWarmup) m.expert_load = MoveRouterBiases();
  masters_->ReturnGradients(working_);
  m.residual_gains = network_->ResidualGains();
  m.mhc_gain = *std::max_element(m.residual_gains.begin(), m.residual_gains.end());
  tokens_ += sums.tokens;
  m.tokens = tokens_;
  m.mtp_loss = sums.mtp_tokens > 0 ? sums.mean_mtp() : 0.0;
  m.balance_loss = sums.mean_balance();
  m.indexer_loss = mode == AttentionMode::kDense ? 0.0 : sums.mean_indexer();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  m.tokens_per_s = static_cast<double>(sums.tokens) / seconds;
  if (options_.peak_flop_per_s > 0) {
    const double newton_schulz = masters_->NewtonSchulzFlop(frozen);
    m.mfu = m.tokens_per_s * flop_per_token_ / options_.peak_flop_per_s;
    m.mfu_with_newton_schulz = m.mfu + newton_schulz / seconds / options_.peak_flop_per_s;
  }
  CACHALOT_RETURN_IF_ERROR(Finish(m));
  return m;
}

Status Trainer::Impl::Finish(StepMetrics& m) {
  ++step_;
  const bool last = step_ == schedule().steps;
  if (last || step_ % recipe_.evaluation.every_steps == 0) {
    CACHALOT_TRY(m.validation_loss, Evaluate());
  }
  if (first_rank()) CACHALOT_RETURN_IF_ERROR(metrics_->Append(m));
  checkpoint_due_ = checkpoint_due_ || last || step_ % recipe_.checkpoint.every_steps == 0;
  if (!checkpoint_due_ || !can_save()) return {};
  checkpoint_due_ = false;
  return Save();
}

Status Trainer::Impl::Save() {
  CACHALOT_CHECK(can_save());
  RunState state{.recipe = options_.recipe_text,
                 .step = step_,
                 .tokens = tokens_,
                 .data = data_->position(),
                 .numbers = {{"anticipate.from", anticipate_from_},
                             {"anticipate.until", anticipate_until_},
                             {"anticipate.spike", rolled_back_from_}}};
  spikes_.Save(state.numbers);
  CACHALOT_RETURN_IF_ERROR(masters_->Save(RunPath(checkpoint_dir(), step_), state));
  if (first_rank()) {
    CACHALOT_RETURN_IF_ERROR(PruneRuns(checkpoint_dir(), recipe_.checkpoint.keep_last));
  }
  options_.comm->Barrier();  // whoever goes on may rely on it
  return {};
}

// Rank 0 computes the loss; the others bring it what they hold.
Result<std::optional<double>> Trainer::Impl::Evaluate() {
  if (data_->validation() == nullptr) return std::optional<double>();
  const uint64_t at = step_ == 0 ? 0 : step_ - 1;
  const EvaluationSet set = EvaluationSetOf(recipe_, data_->validation(), at);
  CACHALOT_TRY(const LossSums sums, quantized(at)
                                        ? EvaluateExported(set)
                                        : EvaluateNetwork(set, StageAt(schedule(), at).attention));
  double found[2] = {sums.ce, static_cast<double>(sums.ce_tokens)};
  options_.comm->Broadcast(found);
  return found[1] > 0 ? std::optional<double>(found[0] / found[1]) : std::nullopt;
}

Result<LossSums> Trainer::Impl::EvaluateNetwork(const EvaluationSet& set, AttentionMode mode) {
  masters_->Publish(/*quantized=*/false, working_);
  LossSums all;
  if (!first_rank() && !exchange_) return all;
  RunOptions run;
  run.backward = false;
  run.csa = mode == AttentionMode::kSparse ? CsaMode::kSparse : CsaMode::kDense;
  CACHALOT_RETURN_IF_ERROR(
      ForEachEvaluationBatch(set, recipe_.model.bos_token_id, [&](const TrainBatch& batch) {
        if (!first_rank()) {
          network_->Serve(run);
          return Status();
        }
        const LossSums sums = network_->Run(batch, run);
        all.ce += sums.ce;
        all.ce_tokens += sums.ce_tokens;
        return Status();
      }));
  return all;
}

// Through the files of an export: nothing that could differ from what a user of the model runs.
Result<LossSums> Trainer::Impl::EvaluateExported(const EvaluationSet& set) {
  const std::string dir = options_.run_dir + "/evaluation";
  std::error_code ec;
  if (first_rank()) {
    fs::remove_all(dir, ec);  // a killed run may have left it
    fs::create_directories(dir, ec);
    if (ec) return Error{ErrorCode::kIo, StrCat(dir, ": cannot create: ", ec.message())};
  }
  const ExportOptions options{.out = dir + "/model", .tokenizer = "", .format = {}, .chat = false};
  CACHALOT_RETURN_IF_ERROR(masters_->Export(options));
  if (!first_rank()) return LossSums();
  CACHALOT_TRY(const CheckpointLoss loss, EvaluateCheckpoint(options.out, set, ctx_));
  fs::remove_all(dir, ec);
  return LossSums{.ce = loss.sum, .ce_tokens = loss.targets};
}

Trainer::Trainer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Trainer::~Trainer() = default;

Result<std::unique_ptr<Trainer>> Trainer::Create(const Recipe& recipe,
                                                 const TrainerOptions& options,
                                                 const kernels::Context& ctx) {
  auto impl = std::make_unique<Impl>(recipe, options, ctx);
  CACHALOT_RETURN_IF_ERROR(impl->Open());
  return std::unique_ptr<Trainer>(new Trainer(std::move(impl)));
}

uint64_t Trainer::step() const { return impl_->step(); }
bool Trainer::can_save() const { return impl_->can_save(); }
bool Trainer::done() const { return impl_->step() >= impl_->schedule().steps; }
Result<StepMetrics> Trainer::Step() { return impl_->Step(); }
Status Trainer::Save() { return impl_->Save(); }
Result<std::optional<double>> Trainer::Evaluate() { return impl_->Evaluate(); }
Status Trainer::Export(const ExportOptions& options) { return impl_->Export(options); }
const ParameterSet& Trainer::parameters() const { return impl_->parameters(); }
double Trainer::flop_per_token() const { return impl_->flop_per_token(); }

}  // namespace cachalot::train
