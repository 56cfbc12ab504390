// SPDX-License-Identifier: Apache-2.0
#include "cachalot/model/inventory.h"

#include "cachalot/model/tensor_source.h"

namespace cachalot::model {
namespace {

uint64_t CeilDiv(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

uint64_t NumElements(const StoredTensor& t) {
  uint64_t n = 1;
  for (const uint64_t dim : t.shape) n *= dim;
  return n;
}

// Records instead of binding.
class Recorder : public TensorSource {
 public:
  explicit Recorder(const Config& config) : config_(config) {}

  WeightView Matrix(const std::string& name, Storage storage, uint32_t rows,
                    uint32_t cols) override {
    const bool fp4 = storage == Storage::kExpert && config_.expert_dtype == ExpertDtype::kFp4;
    const bool fp8 = (storage == Storage::kDense && config_.quantized) ||
                     (storage == Storage::kExpert && config_.expert_dtype == ExpertDtype::kFp8);
    if (fp4) {
      Add(name, DType::kI8, {rows, cols / 2});
      AddScale(name, DType::kF8E8M0, {rows, cols / kFP4Block});
    } else if (fp8) {
      Add(name, DType::kF8E4M3, {rows, cols});
      AddScale(name, config_.scales_f32 ? DType::kF32 : DType::kF8E8M0,
               {CeilDiv(rows, kFP8Block), CeilDiv(cols, kFP8Block)});
    } else {
      Add(name, storage == Storage::kF32 ? DType::kF32 : DType::kBF16, {rows, cols});
    }
    return {};
  }

  std::vector<float> Vector(const std::string& name, Storage storage,
                            std::vector<uint64_t> shape) override {
    Add(name, storage == Storage::kF32 ? DType::kF32 : DType::kBF16, std::move(shape));
    return {};
  }

  std::vector<uint32_t> ExpertTable(const std::string& name, uint32_t vocab, uint32_t per_tok,
                                    uint32_t /*num_experts*/) override {
    Add(name, DType::kI64, {vocab, per_tok});
    return {};
  }

  std::vector<StoredTensor> tensors;

 private:
  void Add(const std::string& name, DType dtype, std::vector<uint64_t> shape) {
    tensors.push_back({.name = name, .dtype = dtype, .shape = std::move(shape)});
  }
  void AddScale(const std::string& weight, DType dtype, std::vector<uint64_t> shape) {
    constexpr std::string_view kWeightSuffix = ".weight";
    tensors.push_back({.name = weight.substr(0, weight.size() - kWeightSuffix.size()) + ".scale",
                       .dtype = dtype,
                       .shape = std::move(shape),
                       .is_scale = true});
  }

  const Config& config_;
};

// Two FP4 values a stored byte.
uint64_t NumParameters(const StoredTensor& t) {
  if (t.is_scale || t.dtype == DType::kI64) return 0;
  return NumElements(t) * (t.dtype == DType::kI8 ? 2 : 1);
}

}  // namespace

uint64_t StoredTensor::bytes() const { return NumElements(*this) * DTypeBytes(dtype); }

std::vector<StoredTensor> ListTensors(const Config& config) {
  Recorder recorder(config);
  WalkMain(config, recorder);
  if (config.draft_kind() == DraftKind::kMtp) WalkMtp(config, recorder);
  if (config.draft_kind() == DraftKind::kDspark) WalkDspark(config, recorder);
  return std::move(recorder.tensors);
}

Totals ComputeTotals(const Config& config) {
  Totals totals;
  uint64_t embed = 0;
  uint64_t routed = 0;
  for (const StoredTensor& t : ListTensors(config)) {
    const uint64_t parameters = NumParameters(t);
    ++totals.tensors;
    ++totals.tensors_by_dtype[std::string(DTypeName(t.dtype))];
    totals.bytes += t.bytes();
    totals.parameters_with_draft += parameters;
    if (t.name.starts_with("mtp.")) continue;
    totals.parameters += parameters;
    if (t.name == "embed.weight") embed = parameters;
    if (t.name.find(".ffn.experts.") != std::string::npos) routed += parameters;
  }
  totals.activated = totals.parameters - embed - routed +
                     routed / config.n_routed_experts * config.num_experts_per_tok;
  return totals;
}

}  // namespace cachalot::model
