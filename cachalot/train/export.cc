// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/export.h"

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <unordered_map>
#include <utility>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/checkpoint/checkpoint.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/model/inventory.h"
#include "cachalot/numeric/formats.h"
#include "cachalot/train/weight_format.h"

namespace cachalot::train {
namespace {

namespace fs = std::filesystem;

// A shard is put together in memory.
constexpr uint64_t kShardBytes = uint64_t{1} << 30;
constexpr uint64_t kMaxTokenizerBytes = uint64_t{1} << 30;

std::string ScaleName(const std::string& weight) {
  constexpr std::string_view kSuffix = ".weight";
  return weight.substr(0, weight.size() - kSuffix.size()) + ".scale";
}

class Exporter {
 public:
  Exporter(const model::Config& config, const ParameterSet& set, const ExportOptions& options,
           std::string dir, const kernels::Context& ctx, const ValueSource& values)
      : config_(config),
        set_(set),
        options_(options),
        dir_(std::move(dir)),
        ctx_(ctx),
        values_(values) {
    for (const Parameter& p : set.parameters) parameters_[p.name] = &p;
    tensors_ = model::ListTensors(config);
    for (model::StoredTensor& t : tensors_) {
      if (options.format == ExportFormat::kFloat32 && t.dtype == DType::kBF16) {
        t.dtype = DType::kF32;
      }
      total_bytes_ += t.bytes();
    }
  }

  Status Run() {
    std::vector<std::pair<size_t, size_t>> shards;  // ranges of tensors_
    for (size_t begin = 0, end = 0; begin < tensors_.size(); begin = end) {
      uint64_t bytes = 0;
      // A matrix and its scales stay together.
      while (end < tensors_.size() && (bytes < kShardBytes || tensors_[end].is_scale)) {
        bytes += tensors_[end++].bytes();
      }
      shards.emplace_back(begin, end);
    }
    Json map = Json::object();
    auto& entries = map.get_ref<Json::object_t&>();  // emplace_back: no look-up
    for (size_t s = 0; s < shards.size(); ++s) {
      const std::string name =
          fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards.size());
      CACHALOT_RETURN_IF_ERROR(WriteShard(name, shards[s].first, shards[s].second));
      for (size_t i = shards[s].first; i < shards[s].second; ++i) {
        entries.emplace_back(tensors_[i].name, name);
      }
    }
    const Json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", map}};
    CACHALOT_RETURN_IF_ERROR(WriteText("model.safetensors.index.json", index.dump(1) + "\n"));
    CACHALOT_RETURN_IF_ERROR(WriteText("config.json", model::ConfigToJson(config_)));
    return WriteSideFiles();
  }

 private:
  Status WriteText(const std::string& name, const std::string& text) const {
    return io::WriteFileAtomic(StrCat(dir_, "/", name), text);
  }

  Status WriteSideFiles() const {
    if (options_.chat) {
      const Json generation = {{"do_sample", true},
                               {"temperature", 1.0},
                               {"top_p", 1.0},
                               {"bos_token_id", config_.bos_token_id},
                               {"eos_token_id", config_.eos_token_id}};
      CACHALOT_RETURN_IF_ERROR(WriteText("generation_config.json", generation.dump(2) + "\n"));
    }
    if (options_.tokenizer.empty()) return {};
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
      CACHALOT_TRY(const std::string text,
                   io::ReadFile(StrCat(options_.tokenizer, "/", name), kMaxTokenizerBytes));
      CACHALOT_RETURN_IF_ERROR(WriteText(name, text));
    }
    return {};
  }

  Status WriteShard(const std::string& name, size_t begin, size_t end) {
    std::vector<std::vector<uint8_t>> bytes(end - begin);
    std::vector<checkpoint::TensorInfo> infos;
    for (size_t i = begin; i < end; ++i) {
      CACHALOT_RETURN_IF_ERROR(Encode(i, bytes[i - begin]));
      const model::StoredTensor& t = tensors_[i];
      infos.push_back({.name = t.name,
                       .dtype = t.dtype,
                       .shape = t.shape,
                       .data = bytes[i - begin].data(),
                       .bytes = bytes[i - begin].size()});
    }
    return checkpoint::WriteSafetensors(StrCat(dir_, "/", name), infos);
  }

  // The stored bytes of one tensor. A matrix leaves its scales for the tensor that follows it.
  Status Encode(size_t i, std::vector<uint8_t>& out) {
    const model::StoredTensor& t = tensors_[i];
    if (t.is_scale) {
      CACHALOT_CHECK(i > 0 && ScaleName(tensors_[i - 1].name) == t.name);
      out = std::move(scales_);
      return CheckSize(t, out);
    }
    if (t.dtype == DType::kI64) {
      CACHALOT_RETURN_IF_ERROR(EncodeTable(t, out));
      return CheckSize(t, out);
    }
    const auto found = parameters_.find(t.name);
    if (found == parameters_.end()) {
      return Error{ErrorCode::kInvalidArgument, StrCat(t.name, ": is not among the parameters")};
    }
    const Parameter& p = *found->second;
    const std::span<const float> value =
        values_ ? values_(static_cast<size_t>(&p - set_.parameters.data())) : p.value.span();
    const MatView<const float> w(value.data(), p.rows, p.cols);
    if (t.dtype == DType::kI8 || t.dtype == DType::kF8E4M3) {
      QuantizedMatrix q = t.dtype == DType::kI8 ? QuantizeFp4(w, ctx_) : QuantizeFp8(w, ctx_);
      out = std::move(q.codes);
      scales_ = std::move(q.scales);
    } else if (t.dtype == DType::kBF16) {
      out.resize(2 * p.size());
      for (size_t k = 0; k < p.size(); ++k) {
        const BF16 rounded = ToBF16(value[k]);
        std::memcpy(out.data() + 2 * k, &rounded.bits, 2);
      }
    } else {
      out.resize(4 * p.size());
      std::memcpy(out.data(), value.data(), out.size());
    }
    return CheckSize(t, out);
  }

  Status EncodeTable(const model::StoredTensor& t, std::vector<uint8_t>& out) const {
    const ExpertTable* table = set_.FindTable(t.name);
    if (table == nullptr) {
      return Error{ErrorCode::kInvalidArgument, StrCat(t.name, ": is not among the tables")};
    }
    out.resize(8 * table->ids.size());
    for (size_t k = 0; k < table->ids.size(); ++k) {
      const auto id = static_cast<int64_t>(table->ids[k]);
      std::memcpy(out.data() + 8 * k, &id, 8);
    }
    return {};
  }

  static Status CheckSize(const model::StoredTensor& t, const std::vector<uint8_t>& out) {
    if (out.size() == t.bytes()) return {};
    return Error{
        ErrorCode::kInvalidArgument,
        StrCat(t.name, ": has ", out.size(), " bytes, the configuration implies ", t.bytes())};
  }

  const model::Config& config_;
  const ParameterSet& set_;
  const ExportOptions& options_;
  std::string dir_;
  kernels::Context ctx_;
  const ValueSource& values_;
  std::vector<model::StoredTensor> tensors_;
  std::unordered_map<std::string_view, const Parameter*> parameters_;
  std::vector<uint8_t> scales_;
  uint64_t total_bytes_ = 0;
};

}  // namespace

model::Config ExportConfig(const model::Config& config, ExportFormat format) {
  model::Config c = config;
  c.quantized = format == ExportFormat::kReleased;
  c.expert_dtype = c.quantized ? model::ExpertDtype::kFp4 : model::ExpertDtype::kUnquantized;
  c.scales_f32 = false;
  return c;
}

Status CheckExport(const model::Config& config, ExportFormat format) {
  const std::string json = model::ConfigToJson(ExportConfig(config, format));
  const auto valid = model::ParseConfig(json, "the exported config.json");
  return valid.ok() ? Status() : Status(valid.error());
}

Status ExportCheckpoint(const model::Config& config, const ParameterSet& set,
                        const ExportOptions& options, const kernels::Context& ctx,
                        const ValueSource& values) {
  CACHALOT_RETURN_IF_ERROR(CheckExport(config, options.format));
  const model::Config exported = ExportConfig(config, options.format);
  std::error_code ec;
  if (fs::exists(options.out, ec)) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(options.out, ": exists; remove it or choose another folder")};
  }
  const std::string temporary = StrCat(options.out, ".tmp.", getpid());
  fs::remove_all(temporary, ec);
  fs::create_directories(temporary, ec);
  if (ec) return Error{ErrorCode::kIo, StrCat(temporary, ": cannot create: ", ec.message())};
  Status status = Exporter(exported, set, options, temporary, ctx, values).Run();
  if (status.ok()) {
    fs::rename(temporary, options.out, ec);
    if (ec) {
      status = Error{ErrorCode::kIo, StrCat(options.out, ": cannot rename: ", ec.message())};
    }
  }
  if (!status.ok()) fs::remove_all(temporary, ec);
  return status;
}

}  // namespace cachalot::train
