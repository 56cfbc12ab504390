// SPDX-License-Identifier: Apache-2.0
// Binds a checkpoint: each tensor the walk names is looked up and checked before a view of it is
// handed out.
#include "cachalot/model/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "cachalot/base/strings.h"
#include "cachalot/model/tensor_source.h"
#include "cachalot/numeric/formats.h"

namespace cachalot::model {
namespace {

using checkpoint::Checkpoint;
using checkpoint::TensorInfo;

constexpr std::string_view kWeightSuffix = ".weight";

std::string ShapeText(std::span<const uint64_t> shape) {
  return StrCat("[", fmt::format("{}", fmt::join(shape.begin(), shape.end(), ", ")), "]");
}

uint64_t CeilDiv(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

class Binder : public TensorSource {
 public:
  explicit Binder(const Checkpoint& ckpt) : ckpt_(ckpt), bound_(ckpt.tensors().size(), false) {}

  Status status() const { return error_ ? Status(*error_) : Status(); }

  // A tensor of a layer that the walk did not come by: the config has fewer layers or experts, or
  // other layer kinds, than the weights were trained with, and running it would give nonsense.
  void CheckNothingLeft() {
    for (size_t i = 0; i < bound_.size(); ++i) {
      const std::string& name = ckpt_.tensors()[i].name;
      if (bound_[i] || !name.starts_with("layers.")) continue;
      return Complain(StrCat("tensor '", name, "' is none that config.json implies; do the config ",
                             "and the weights belong together?"));
    }
  }

  WeightView Matrix(const std::string& name, Storage storage, uint32_t rows,
                    uint32_t cols) override {
    const TensorInfo* info = Find(name);
    if (info == nullptr) return {};
    WeightView view{.rows = rows, .cols = cols, .data = info->data};
    if (!SetKind(*info, storage, view)) return {};
    const uint64_t stored_cols = view.kind == WeightKind::kFP4 ? cols / 2 : cols;
    if (!CheckShape(*info, {rows, stored_cols})) return {};
    if (view.kind == WeightKind::kFP8 || view.kind == WeightKind::kFP4) SetScales(name, view);
    return view;
  }

  std::vector<float> Vector(const std::string& name, Storage /*storage*/,
                            std::vector<uint64_t> shape) override {
    const TensorInfo* info = Find(name);
    if (info == nullptr || !CheckShape(*info, shape)) return {};
    std::vector<float> out(info->num_elements());
    if (info->dtype == DType::kF32) {
      std::memcpy(out.data(), info->data, info->bytes);
    } else if (info->dtype == DType::kBF16) {
      for (size_t i = 0; i < out.size(); ++i) {
        BF16 value;
        std::memcpy(&value.bits, info->data + 2 * i, sizeof(value.bits));
        out[i] = ToFloat(value);
      }
    } else {
      ComplainDtype(*info, "BF16 or F32");
      return {};
    }
    return out;
  }

  std::vector<uint32_t> ExpertTable(const std::string& name, uint32_t vocab, uint32_t per_tok,
                                    uint32_t num_experts) override {
    const TensorInfo* info = Find(name);
    if (info == nullptr || !CheckShape(*info, {vocab, per_tok})) return {};
    if (info->dtype != DType::kI64 && info->dtype != DType::kI32) {
      ComplainDtype(*info, "I64");
      return {};
    }
    std::vector<uint32_t> table(size_t{vocab} * per_tok);
    for (size_t i = 0; i < table.size(); ++i) {
      const int64_t id = ReadId(*info, i);
      if (id < 0 || id >= num_experts) {
        Complain(StrCat("tensor '", name, "': expert ", id, " for token ", i / per_tok,
                        ", expected 0 to ", num_experts - 1));
        return {};
      }
      table[i] = static_cast<uint32_t>(id);
      const auto row = table.begin() + static_cast<ptrdiff_t>(i / per_tok * per_tok);
      const auto here = table.begin() + static_cast<ptrdiff_t>(i);
      if (std::find(row, here, table[i]) != here) {
        Complain(StrCat("tensor '", name, "': token ", i / per_tok, " names expert ", id,
                        " twice, expected distinct experts"));
        return {};
      }
    }
    return table;
  }

 private:
  static int64_t ReadId(const TensorInfo& info, size_t i) {
    if (info.dtype == DType::kI32) {
      int32_t id = 0;
      std::memcpy(&id, info.data + 4 * i, sizeof(id));
      return id;
    }
    int64_t id = 0;
    std::memcpy(&id, info.data + 8 * i, sizeof(id));
    return id;
  }

  void Complain(const std::string& what) {
    if (!error_) {
      error_ = Error{ErrorCode::kDataCorruption, StrCat(ckpt_.dir(), ": ", what)};
    }
  }
  void ComplainDtype(const TensorInfo& info, std::string_view expected) {
    Complain(
        StrCat("tensor '", info.name, "' is ", DTypeName(info.dtype), ", expected ", expected));
  }

  const TensorInfo* Find(const std::string& name) {
    if (error_) return nullptr;
    const TensorInfo* info = ckpt_.Find(name);
    if (info == nullptr) {
      Complain(StrCat("tensor '", name, "' is missing; is the download complete?"));
      return nullptr;
    }
    bound_[static_cast<size_t>(info - ckpt_.tensors().data())] = true;
    return info;
  }

  bool CheckShape(const TensorInfo& info, const std::vector<uint64_t>& expected) {
    if (info.shape == expected) return true;
    Complain(StrCat("tensor '", info.name, "' has shape ", ShapeText(info.shape), ", expected ",
                    ShapeText(expected)));
    return false;
  }

  // The stored format, where it is one that `storage` may have.
  bool SetKind(const TensorInfo& info, Storage storage, WeightView& view) {
    const bool quantizable = storage == Storage::kDense || storage == Storage::kExpert;
    if (info.dtype == DType::kF32) {
      view.kind = WeightKind::kF32;
    } else if (info.dtype == DType::kBF16) {
      view.kind = WeightKind::kBF16;
    } else if (info.dtype == DType::kF8E4M3 && quantizable) {
      view.kind = WeightKind::kFP8;
    } else if (info.dtype == DType::kI8 && storage == Storage::kExpert) {
      if (view.cols % kFP4Block != 0) {
        Complain(StrCat("tensor '", info.name, "': FP4 with ", view.cols,
                        " columns, expected a multiple of 32"));
        return false;
      }
      view.kind = WeightKind::kFP4;
    } else {
      ComplainDtype(info, storage == Storage::kExpert  ? "I8 (FP4), F8_E4M3, BF16 or F32"
                          : storage == Storage::kDense ? "F8_E4M3, BF16 or F32"
                                                       : "BF16 or F32");
      return false;
    }
    return true;
  }

  void SetScales(const std::string& weight_name, WeightView& view) {
    const std::string name =
        weight_name.substr(0, weight_name.size() - kWeightSuffix.size()) + ".scale";
    const TensorInfo* info = Find(name);
    if (info == nullptr) return;
    const bool fp4 = view.kind == WeightKind::kFP4;
    const std::vector<uint64_t> expected =
        fp4 ? std::vector<uint64_t>{view.rows, view.cols / kFP4Block}
            : std::vector<uint64_t>{CeilDiv(view.rows, kFP8Block), CeilDiv(view.cols, kFP8Block)};
    if (!CheckShape(*info, expected)) return;
    if (info->dtype != DType::kF8E8M0 && info->dtype != DType::kF32) {
      return ComplainDtype(*info, "F8_E8M0 or F32");
    }
    view.scales = info->data;
    view.scale_dtype = info->dtype;
  }

  const Checkpoint& ckpt_;
  std::vector<bool> bound_;  // indexed as ckpt_.tensors()
  std::optional<Error> error_;
};

}  // namespace

Result<Weights> BindWeights(const Config& config, std::shared_ptr<const Checkpoint> ckpt) {
  Binder binder(*ckpt);
  Weights weights = WalkMain(config, binder);
  // A converter may have dropped the MTP block; the config still counts it.
  if (config.draft_kind() == DraftKind::kMtp && ckpt->Find("mtp.0.attn_norm.weight") != nullptr) {
    weights.mtp = WalkMtp(config, binder);
  }
  binder.CheckNothingLeft();
  CACHALOT_RETURN_IF_ERROR(binder.status());
  weights.storage = std::move(ckpt);
  return weights;
}

Result<std::shared_ptr<const Weights>> LoadWeights(const std::string& dir,
                                                   const LoadOptions& options) {
  CACHALOT_TRY(const Config config, LoadConfig(dir));
  const auto memory = options.huge_pages ? io::FileMemory::kHugePages : io::FileMemory::kMapped;
  CACHALOT_TRY(auto ckpt, Checkpoint::Open(dir, {memory, options.progress, options.placement}));
  // A copy is in memory already.
  if (options.preload && !options.huge_pages) {
    CACHALOT_RETURN_IF_ERROR(ckpt->Preload(options.progress));
  }
  if (options.lock) CACHALOT_RETURN_IF_ERROR(ckpt->Lock());
  CACHALOT_TRY(Weights weights, BindWeights(config, std::move(ckpt)));
  return std::make_shared<const Weights>(std::move(weights));
}

}  // namespace cachalot::model
