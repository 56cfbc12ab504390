// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/parameters.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/checkpoint/checkpoint.h"
#include "cachalot/model/tensor_source.h"
#include "cachalot/model/weights.h"

namespace cachalot::train {
namespace {

using model::Storage;

// Records names and shapes of model's walk.
class Collector : public model::TensorSource {
 public:
  WeightView Matrix(const std::string& name, Storage /*storage*/, uint32_t rows,
                    uint32_t cols) override {
    Add(name, rows, cols);
    return {};
  }
  std::vector<float> Vector(const std::string& name, Storage /*storage*/,
                            std::vector<uint64_t> shape) override {
    if (shape.size() == 1) {
      Add(name, 1, shape[0]);
    } else {
      Add(name, shape[0], shape[1]);  // ape
    }
    return {};
  }
  std::vector<uint32_t> ExpertTable(const std::string& name, uint32_t vocab, uint32_t per_tok,
                                    uint32_t /*num_experts*/) override {
    set.tables.push_back({name, vocab, per_tok, std::vector<uint32_t>(size_t{vocab} * per_tok, 0)});
    return {};
  }

  ParameterSet set;

 private:
  void Add(const std::string& name, size_t rows, size_t cols) {
    set.parameters.push_back({.name = name, .rows = rows, .cols = cols, .value = {}, .grad = {}});
  }
};

// FNV-1a: a tensor draws the same values whatever else is in the set.
uint64_t NameKey(std::string_view name, uint64_t seed) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  }
  return CounterRandom(seed, hash, 0);
}

// Box-Muller; the sine half is not used, so that value i depends on i alone.
float Normal(uint64_t key, uint64_t i) {
  const double radius = std::sqrt(-2.0 * std::log(UniformOpen(CounterRandom(key, i, 1))));
  const double angle = 2.0 * std::numbers::pi * UniformOpen(CounterRandom(key, i, 2));
  return static_cast<float>(radius * std::cos(angle));
}

constexpr float kStandardDeviation = 0.02f;  // initializer_range of the released config
constexpr float kHyperScale = 0.01f;         // alpha of the mHC paper, table 5
// exp(3) = 20: comb starts near the identity without saturating its softmax.
constexpr float kCombDiagonal = 3.0f;

// pre = 1 / M each, post = 1, comb near the identity: the start is a plain residual.
// A linear map (kUnconstrained) starts at the identity itself.
void FillHyperBase(size_t streams, float diagonal, Parameter& p) {
  const float pre = -std::log(static_cast<float>(streams) - 1.0f);  // logit(1 / M)
  for (size_t i = 0; i < streams; ++i) p.value[i] = streams > 1 ? pre : 4.0f;
  for (size_t j = 0; j < streams && p.cols > streams; ++j) {
    p.value[2 * streams + j * streams + j] = diagonal;
  }
}

void FillParameter(size_t streams, float diagonal, uint64_t seed, Parameter& p) {
  const std::string_view name = p.name;
  if (name.ends_with("norm.weight")) {
    std::ranges::fill(p.value.span(), 1.0f);
  } else if (name.ends_with("_scale")) {
    std::ranges::fill(p.value.span(), kHyperScale);
  } else if (name.ends_with("_base")) {
    FillHyperBase(streams, diagonal, p);
  } else if (name.ends_with(".weight") || name.ends_with("_fn")) {
    const uint64_t key = NameKey(name, seed);
    for (size_t i = 0; i < p.size(); ++i) p.value[i] = kStandardDeviation * Normal(key, i);
  }  // ape, attn_sink and gate.bias stay 0
}

// Distinct experts for each token, every choice equally likely.
void FillTable(size_t num_experts, uint64_t seed, ExpertTable& table) {
  const uint64_t key = NameKey(table.name, seed);
  std::vector<uint32_t> experts(num_experts);
  for (size_t v = 0; v < table.rows; ++v) {
    for (uint32_t e = 0; e < num_experts; ++e) experts[e] = e;
    for (size_t a = 0; a < table.cols; ++a) {
      std::swap(experts[a], experts[a + CounterRandom(key, v, a) % (num_experts - a)]);
      table.ids[v * table.cols + a] = experts[a];
    }
  }
}

// The stored tensor `name` as a view with its scales, as model::BindWeights has checked it.
WeightView StoredView(const checkpoint::Checkpoint& ckpt, const Parameter& p) {
  const checkpoint::TensorInfo& info = *ckpt.Find(p.name);
  WeightView view{.rows = static_cast<uint32_t>(p.rows),
                  .cols = static_cast<uint32_t>(p.cols),
                  .data = info.data};
  if (info.dtype == DType::kF32) return view;
  view.kind = info.dtype == DType::kBF16     ? WeightKind::kBF16
              : info.dtype == DType::kF8E4M3 ? WeightKind::kFP8
                                             : WeightKind::kFP4;
  if (view.kind == WeightKind::kBF16) return view;
  constexpr std::string_view kSuffix = ".weight";
  const std::string stem = p.name.substr(0, p.name.size() - kSuffix.size());
  const checkpoint::TensorInfo& scale = *ckpt.Find(stem + ".scale");
  view.scales = scale.data;
  view.scale_dtype = scale.dtype;
  return view;
}

void ReadTable(const checkpoint::Checkpoint& ckpt, ExpertTable& table) {
  const checkpoint::TensorInfo& info = *ckpt.Find(table.name);
  const size_t bytes = DTypeBytes(info.dtype);  // I64 or I32, little-endian
  for (size_t i = 0; i < table.ids.size(); ++i) {
    std::memcpy(&table.ids[i], info.data + i * bytes, sizeof(uint32_t));
  }
}

}  // namespace

Result<ParameterSet> ListParameters(const model::Config& config) {
  if (config.draft_kind() == model::DraftKind::kDspark) {
    return Error{ErrorCode::kInvalidArgument,
                 "dspark_block_size: DSpark stages cannot be trained; remove the dspark fields"};
  }
  Collector collector;
  model::WalkMain(config, collector);
  if (config.draft_kind() == model::DraftKind::kMtp) model::WalkMtp(config, collector);
  return std::move(collector.set);
}

Result<ParameterSet> MakeParameters(const model::Config& config) {
  CACHALOT_TRY(ParameterSet set, ListParameters(config));
  for (Parameter& p : set.parameters) {
    p.value = AlignedBuffer<float>(p.size());
    p.grad = AlignedBuffer<float>(p.size());
  }
  return set;
}

void InitializeParameters(const model::Config& config, uint64_t seed, ParameterSet& set,
                          bool linear_residual_maps) {
  const float diagonal = linear_residual_maps ? 1.0f : kCombDiagonal;
  for (Parameter& p : set.parameters) {
    if (p.held()) FillParameter(config.hc_mult, diagonal, seed, p);
  }
  for (ExpertTable& table : set.tables) FillTable(config.n_routed_experts, seed, table);
}

Result<ParameterSet> LoadParameters(const std::string& dir) {
  CACHALOT_TRY(const auto weights, model::LoadWeights(dir));
  if (weights->config.draft_kind() == model::DraftKind::kMtp && !weights->mtp.has_value()) {
    return Error{ErrorCode::kNotFound,
                 StrCat(dir, ": the MTP block that config.json counts has no tensors; set ",
                        "num_nextn_predict_layers to 0 to train without it")};
  }
  CACHALOT_TRY(ParameterSet set, MakeParameters(weights->config));
  const checkpoint::Checkpoint& ckpt = *weights->storage;
  for (Parameter& p : set.parameters) {
    const WeightView view = StoredView(ckpt, p);
    for (size_t r = 0; r < p.rows; ++r) WidenRow(view, r, {p.value.data() + r * p.cols, p.cols});
  }
  for (ExpertTable& table : set.tables) ReadTable(ckpt, table);
  return set;
}

ParameterSetT<double> ToDouble(const ParameterSet& set) {
  ParameterSetT<double> out;
  out.tables = set.tables;
  for (const Parameter& p : set.parameters) {
    ParameterT<double> q{.name = p.name, .rows = p.rows, .cols = p.cols, .value = {}, .grad = {}};
    q.value = AlignedBuffer<double>(p.size());
    q.grad = AlignedBuffer<double>(p.size());
    for (size_t i = 0; i < p.size(); ++i) q.value[i] = double{p.value[i]};
    out.parameters.push_back(std::move(q));
  }
  return out;
}

}  // namespace cachalot::train
