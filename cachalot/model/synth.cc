// SPDX-License-Identifier: Apache-2.0
#include "cachalot/model/synth.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "cachalot/base/json.h"
#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/model/inventory.h"
#include "cachalot/numeric/formats.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::model {
namespace {

namespace fs = std::filesystem;

// One buffer is filled by all threads, then written: large enough to amortize both, small enough to
// stay out of the way.
constexpr size_t kBufferBytes = size_t{32} << 20;
constexpr size_t kTaskBytes = size_t{256} << 10;  // a multiple of every element size

// Root mean square of uniformly drawn FP4 codes: sqrt((0 + .25 + 1 + 2.25 + 4 + 9 + 16 + 36) / 8).
constexpr double kFp4Rms = 2.9261;
// Of the FP8 codes drawn here: exponents -2 .. 1 and 3 random mantissa bits,
// sqrt(mean(4^e) * mean((1 + m/8)^2)) = sqrt(1.328 * 2.109).
constexpr double kFp8Rms = 1.6737;

// E8M0 code of the power of two that brings `rms` nearest to 1 / sqrt(inputs).
uint8_t ScaleCode(double rms, uint64_t inputs) {
  const double wanted = 1.0 / (std::sqrt(static_cast<double>(inputs)) * rms);
  return static_cast<uint8_t>(127 + std::lround(std::log2(wanted)));
}

// How the elements of one tensor are drawn.
struct Filler {
  const StoredTensor* tensor = nullptr;
  uint64_t key = 0;     // of the counter RNG
  float center = 0.0f;  // BF16 and F32: center +- spread, uniform
  float spread = 0.0f;
  uint8_t scale = 127;  // E8M0
  uint32_t num_experts = 0;
  bool zipf = false;
};

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

Filler MakeFiller(const StoredTensor& tensor, const SynthOptions& options, uint64_t index) {
  Filler f{.tensor = &tensor,
           .key = CounterRandom(options.seed, index, 0),
           .num_experts = options.config.n_routed_experts,
           .zipf = options.routing == SynthRouting::kZipf};
  const bool matrix = tensor.shape.size() == 2;
  if (tensor.is_scale) {
    // One FP4 scale covers 32 inputs of its row; an FP8 scale 128.
    const bool fp4 = tensor.name.find(".ffn.experts.") != std::string::npos &&
                     options.config.expert_dtype == ExpertDtype::kFp4;
    f.scale = fp4 ? ScaleCode(kFp4Rms, tensor.shape[1] * kFP4Block)
                  : ScaleCode(kFp8Rms, tensor.shape[1] * kFP8Block);
    f.center = E8M0ToFloat(f.scale);
  } else if (EndsWith(tensor.name, "norm.weight")) {
    f.center = 1.0f;
    f.spread = 0.1f;
  } else if (EndsWith(tensor.name, "_scale")) {
    f.center = 0.5f;
  } else if (EndsWith(tensor.name, "embed.weight")) {
    f.spread = 1.0f;
  } else if (matrix && !EndsWith(tensor.name, "ape")) {
    f.spread = std::sqrt(3.0f / static_cast<float>(tensor.shape[1]));  // variance 1 / inputs
  } else if (EndsWith(tensor.name, "gate.bias")) {
    f.spread = 0.01f;
  } else {
    f.spread = 0.5f;  // ape, attn_sink, hc bases
  }
  return f;
}

float UniformAround(const Filler& f, uint64_t i) {
  const auto bits = static_cast<int32_t>(CounterRandom(f.key, 1, i) >> 32);
  return f.center + f.spread * (static_cast<float>(bits) * 0x1p-31f);
}

// Router scores sqrt(softplus(z)) of z ~ N(0, 1) spread by about 0.26, so a bias that falls by 0.26
// per factor e in rank makes the choice fall about as 1 / rank.
constexpr float kZipfSlope = 0.26f;

float FloatElement(const Filler& f, uint64_t i) {
  const float value = UniformAround(f, i);
  if (!f.zipf || !EndsWith(f.tensor->name, "gate.bias")) return value;
  return value - kZipfSlope * std::log(static_cast<float>(i + 1));
}

// Expert of slot (token, a): distinct within a token, by walking on from a drawn start.
int64_t TableElement(const Filler& f, uint64_t i) {
  const uint64_t per_tok = f.tensor->shape[1];
  const uint64_t token = i / per_tok;
  const double u = UniformOpen(CounterRandom(f.key, 2, token));
  const auto n = static_cast<double>(f.num_experts);
  // Inverse of the 1/x distribution over 1..n, or uniform.
  const double start = f.zipf ? std::pow(n, u) - 1.0 : u * n;
  const uint64_t stride = 1 + CounterRandom(f.key, 3, token) % (f.num_experts / per_tok);
  return static_cast<int64_t>((static_cast<uint64_t>(start) + (i % per_tok) * stride) %
                              f.num_experts);
}

template <typename T>
void StoreElement(uint8_t* out, T value) {
  std::memcpy(out, &value, sizeof(value));
}

// Bytes [begin, begin + size) of the tensor; begin a multiple of kTaskBytes.
void FillBytes(const Filler& f, uint64_t begin, size_t size, uint8_t* out) {
  const size_t width = DTypeBytes(f.tensor->dtype);
  switch (f.tensor->dtype) {
    case DType::kI8:
    case DType::kF8E4M3:
      for (size_t at = 0; at < size; at += 8) {
        uint64_t bits = CounterRandom(f.key, 1, begin + at);
        if (f.tensor->dtype == DType::kF8E4M3) {
          // Sign and mantissa as drawn, exponent field 5 + two of the drawn bits (no byte of a sum
          // carries: 0x28 + 0x18 < 0x80).
          bits = (bits & 0x8787878787878787ull) + (bits & 0x1818181818181818ull) +
                 0x2828282828282828ull;
        }
        std::memcpy(out + at, &bits, std::min<size_t>(8, size - at));
      }
      return;
    case DType::kF8E8M0:
      std::memset(out, f.scale, size);
      return;
    case DType::kBF16:
      for (size_t at = 0; at < size; at += width) {
        StoreElement(out + at, ToBF16(FloatElement(f, (begin + at) / width)).bits);
      }
      return;
    case DType::kF32:
      for (size_t at = 0; at < size; at += width) {
        StoreElement(out + at, FloatElement(f, (begin + at) / width));
      }
      return;
    case DType::kI64:
      for (size_t at = 0; at < size; at += width) {
        StoreElement(out + at, TableElement(f, (begin + at) / width));
      }
      return;
    case DType::kI32:
      std::memset(out, 0, size);
      return;
  }
}

// Shards as released: embedding, one a layer, final norm and head, draft. [model.md 1.4]
std::vector<std::vector<size_t>> GroupIntoShards(const std::vector<StoredTensor>& tensors,
                                                 const Config& config) {
  const size_t layers = config.num_hidden_layers;
  std::vector<std::vector<size_t>> shards(layers + 3);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string& name = tensors[i].name;
    size_t shard = layers + 1;
    if (name == "embed.weight") shard = 0;
    if (name.starts_with("mtp.")) shard = layers + 2;
    if (name.starts_with("layers.")) shard = 1 + std::stoul(name.substr(7));
    shards[shard].push_back(i);
  }
  if (shards.back().empty()) shards.pop_back();
  return shards;
}

// A file being written; WriteSynthCheckpoint removes the folder if anything fails.
class ShardFile {
 public:
  static Result<ShardFile> Create(const std::string& path) {
    ShardFile file;
    file.path_ = path;
    file.fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file.fd_ < 0) return file.Failure("create");
    return file;
  }
  ShardFile(ShardFile&& o) noexcept : path_(std::move(o.path_)), fd_(std::exchange(o.fd_, -1)) {}
  ShardFile& operator=(ShardFile&&) = delete;
  ~ShardFile() {
    if (fd_ >= 0) close(fd_);
  }
  Status Write(const uint8_t* data, size_t size) {
    while (size > 0) {
      const ssize_t n = write(fd_, data, size);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return Failure("write");
      data += n;
      size -= static_cast<size_t>(n);
    }
    return {};
  }

 private:
  ShardFile() = default;
  Error Failure(std::string_view action) const {
    const int code = errno;
    return {code == ENOSPC ? ErrorCode::kResourceExhausted : ErrorCode::kIo,
            StrCat(path_, ": cannot ", action, ": ", std::strerror(code))};
  }
  std::string path_;
  int fd_ = -1;
};

class Writer {
 public:
  Writer(const SynthOptions& options, ThreadPool& pool, const SynthProgress& progress)
      : options_(options),
        pool_(pool),
        progress_(progress),
        tensors_(ListTensors(options.config)),
        buffer_(kBufferBytes) {
    for (const StoredTensor& t : tensors_) total_bytes_ += t.bytes();
  }

  Status CheckSpace() const {
    struct statvfs info {};
    if (statvfs(options_.out.c_str(), &info) != 0) return {};  // the write will tell
    const uint64_t available = uint64_t{info.f_bavail} * info.f_frsize;
    const uint64_t needed = total_bytes_ + (uint64_t{64} << 20);  // headers, tokenizer
    if (needed <= available) return {};
    return Error{ErrorCode::kResourceExhausted,
                 StrCat(options_.out, ": the checkpoint needs ", needed, " bytes, the disk has ",
                        available, " free; take fewer --layers or another --out")};
  }

  Status WriteAll() {
    const auto shards = GroupIntoShards(tensors_, options_.config);
    Json weight_map = Json::object();
    auto& map_entries = weight_map.get_ref<Json::object_t&>();  // emplace_back: no look-up
    for (size_t s = 0; s < shards.size(); ++s) {
      const std::string name =
          fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards.size());
      CACHALOT_RETURN_IF_ERROR(WriteShard(name, shards[s]));
      for (const size_t i : shards[s]) map_entries.emplace_back(tensors_[i].name, name);
    }
    const Json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", weight_map}};
    const Config& c = options_.config;
    const Json generation = {{"do_sample", true},
                             {"temperature", 1.0},
                             {"top_p", 1.0},
                             {"bos_token_id", c.bos_token_id},
                             {"eos_token_id", c.eos_token_id}};
    const Json tokenizer_config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                   {"add_bos_token", false},
                                   {"add_eos_token", false},
                                   {"model_max_length", c.max_position_embeddings}};
    CACHALOT_RETURN_IF_ERROR(WriteText("model.safetensors.index.json", index.dump(1)));
    CACHALOT_RETURN_IF_ERROR(WriteText("generation_config.json", generation.dump(2)));
    CACHALOT_RETURN_IF_ERROR(WriteText("tokenizer_config.json", tokenizer_config.dump(2)));
    CACHALOT_RETURN_IF_ERROR(WriteText("tokenizer.json", SynthTokenizerJson(c.vocab_size)));
    return WriteText("config.json", ConfigToJson(c));
  }

 private:
  Status WriteText(const char* name, const std::string& text) {
    return io::WriteFileAtomic(StrCat(options_.out, "/", name), text);
  }

  Status WriteShard(const std::string& name, const std::vector<size_t>& members) {
    CACHALOT_TRY(ShardFile file, ShardFile::Create(StrCat(options_.out, "/", name)));
    Json header = Json::object();
    uint64_t at = 0;
    for (const size_t i : members) {
      const StoredTensor& t = tensors_[i];
      header.push_back({t.name,
                        {{"dtype", std::string(DTypeName(t.dtype))},
                         {"shape", t.shape},
                         {"data_offsets", {at, at + t.bytes()}}}});
      at += t.bytes();
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const uint64_t length = text.size();
    uint8_t prefix[sizeof(length)];
    std::memcpy(prefix, &length, sizeof(length));
    CACHALOT_RETURN_IF_ERROR(file.Write(prefix, sizeof(prefix)));
    CACHALOT_RETURN_IF_ERROR(
        file.Write(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
    for (const size_t i : members) CACHALOT_RETURN_IF_ERROR(WriteTensor(file, i));
    return Flush(file);
  }

  // Appends the tensor's tasks to the buffer, flushing when it is full.
  Status WriteTensor(ShardFile& file, size_t index) {
    const Filler filler = MakeFiller(tensors_[index], options_, index);
    const uint64_t bytes = tensors_[index].bytes();
    for (uint64_t begin = 0; begin < bytes; begin += kTaskBytes) {
      const size_t size = std::min<uint64_t>(kTaskBytes, bytes - begin);
      if (used_ + size > buffer_.size()) CACHALOT_RETURN_IF_ERROR(Flush(file));
      tasks_.push_back({filler, begin, size, used_});
      used_ += size;
    }
    return {};
  }

  Status Flush(ShardFile& file) {
    pool_.ParallelFor(tasks_.size(), [&](size_t i, size_t) {
      const Task& task = tasks_[i];
      FillBytes(task.filler, task.begin, task.size, buffer_.data() + task.offset);
    });
    CACHALOT_RETURN_IF_ERROR(file.Write(buffer_.data(), used_));
    written_ += used_;
    used_ = 0;
    tasks_.clear();
    if (progress_ && !progress_(written_, total_bytes_)) {
      return Error{ErrorCode::kCancelled, "stopped; the partial checkpoint was removed"};
    }
    return {};
  }

  struct Task {
    Filler filler;
    uint64_t begin;
    size_t size;
    size_t offset;
  };

  const SynthOptions& options_;
  ThreadPool& pool_;
  const SynthProgress& progress_;
  std::vector<StoredTensor> tensors_;
  std::vector<uint8_t> buffer_;
  std::vector<Task> tasks_;
  size_t used_ = 0;
  uint64_t written_ = 0;
  uint64_t total_bytes_ = 0;
};

}  // namespace

Result<Config> SynthConfig(const Config& base, uint32_t layers, uint32_t vocab, bool mtp) {
  if (layers == 0 || layers > base.num_hidden_layers) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("layers is ", layers, ", expected 1 to ", base.num_hidden_layers)};
  }
  if (vocab < MinSynthVocab()) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("vocab is ", vocab, ", expected at least ", MinSynthVocab(),
                        " (bytes and special tokens)")};
  }
  constexpr uint32_t kMaxVocab = 400000;  // what the made-up merges reach
  if (vocab > kMaxVocab) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("vocab is ", vocab, ", expected at most ", kMaxVocab)};
  }
  Config c = base;
  c.num_hidden_layers = layers;
  c.vocab_size = vocab;
  c.num_hash_layers = std::min(c.num_hash_layers, layers);
  c.num_nextn_predict_layers = mtp ? 1 : 0;
  c.dspark_block_size = 0;
  c.bos_token_id = 0;  // where SynthTokenizerJson puts them
  c.eos_token_id = 1;
  c.compress_ratios.resize(layers);
  if (mtp) c.compress_ratios.push_back(0);
  return c;
}

Status WriteSynthCheckpoint(const SynthOptions& options, ThreadPool& pool,
                            const SynthProgress& progress) {
  std::error_code ec;
  const bool existed = fs::exists(options.out, ec);
  if (existed && !fs::is_empty(options.out, ec)) {
    return Error{
        ErrorCode::kInvalidArgument,
        StrCat(options.out, ": exists and is not empty; remove it or choose another --out")};
  }
  fs::create_directories(options.out, ec);
  if (ec) return Error{ErrorCode::kIo, StrCat(options.out, ": cannot create: ", ec.message())};
  Writer writer(options, pool, progress);
  Status status = writer.CheckSpace();
  if (status.ok()) status = writer.WriteAll();
  if (!status.ok()) {
    for (const auto& entry : fs::directory_iterator(options.out, ec)) fs::remove(entry.path(), ec);
    if (!existed) fs::remove(options.out, ec);
  }
  return status;
}

}  // namespace cachalot::model
