// SPDX-License-Identifier: Apache-2.0
// Binding: what is right loads, what does not fit is refused by tensor name before anything runs.
#include "cachalot/model/weights.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/model/inventory.h"
#include "cachalot/model/synth.h"

namespace cachalot::model {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpoint;
using checkpoint::TensorInfo;

constexpr const char* kGoldenTiny = CACHALOT_SOURCE_DIR "/tests/golden/tiny-flash";

// A folder that goes away.
class WeightsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "cachalot_weights_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { fs::remove_all(dir_); }

  // A small quantized checkpoint with hash and score layers of every kind, and MTP.
  void WriteSmall(const std::string& name, uint64_t seed = 1, size_t threads = 2,
                  SynthRouting routing = SynthRouting::kUniform, bool mtp = true) {
    const auto base = LoadConfig(kGoldenTiny);
    ASSERT_TRUE(base.ok()) << base.error().message;
    const auto config = SynthConfig(*base, base->num_hidden_layers, 300, mtp);
    ASSERT_TRUE(config.ok()) << config.error().message;
    ThreadPool pool(threads);
    const Status status = WriteSynthCheckpoint(
        {.config = *config, .out = Path(name), .seed = seed, .routing = routing}, pool, {});
    ASSERT_TRUE(status.ok()) << status.error().message;
  }
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }

  // Rewrites checkpoint `from` as one file after `edit`, and returns what binding says.
  template <typename Edit>
  std::string BindEdited(const std::string& from, const Edit& edit) {
    const auto original = Checkpoint::Open(Path(from));
    auto config = LoadConfig(Path(from));
    if (!original.ok() || !config.ok()) return "cannot open the original";
    std::vector<TensorInfo> tensors = (*original)->tensors();
    edit(tensors, *config);
    const std::string out = Path("edited");
    fs::remove_all(out);
    fs::create_directory(out);
    const Status written = checkpoint::WriteSafetensors(out + "/model.safetensors", tensors);
    if (!written.ok()) return written.error().message;
    auto edited = Checkpoint::Open(out);
    if (!edited.ok()) return edited.error().message;
    const auto weights = BindWeights(*config, *edited);
    return weights.ok() ? "ok" : weights.error().message;
  }

  std::string dir_;
};

TensorInfo& Tensor(std::vector<TensorInfo>& tensors, const std::string& name) {
  const auto it = std::ranges::find(tensors, name, &TensorInfo::name);
  CACHALOT_CHECK(it != tensors.end());
  return *it;
}

TEST_F(WeightsTest, TheGoldenCheckpointsBind) {
  for (const std::string& dir :
       {std::string(kGoldenTiny), std::string(CACHALOT_SOURCE_DIR "/../shared/golden/grad"),
        std::string(CACHALOT_SOURCE_DIR "/../shared/models/mini")}) {
    if (!fs::exists(dir)) {
      std::cerr << "SKIPPED: " << dir << " is not there\n";
      continue;
    }
    const auto weights = LoadWeights(dir);
    EXPECT_TRUE(weights.ok()) << weights.error().message;
  }
}

TEST_F(WeightsTest, SynthesizedCheckpointsLoadBack) {
  WriteSmall("a");
  const auto weights = LoadWeights(Path("a"));
  ASSERT_TRUE(weights.ok()) << weights.error().message;
  EXPECT_TRUE((*weights)->mtp.has_value());
  const Totals totals = ComputeTotals((*weights)->config);
  EXPECT_EQ((*weights)->storage->tensors().size(), totals.tensors);
  EXPECT_EQ((*weights)->storage->total_bytes(), totals.bytes);
  WriteSmall("zipf", 1, 2, SynthRouting::kZipf, /*mtp=*/false);
  const auto zipf = LoadWeights(Path("zipf"));
  ASSERT_TRUE(zipf.ok()) << zipf.error().message;
  EXPECT_FALSE((*zipf)->mtp.has_value());
}

std::map<std::string, std::string> AllFiles(const std::string& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(dir)) {
    files[entry.path().filename().string()] = *io::ReadFile(entry.path().string(), 1 << 28);
  }
  return files;
}

TEST_F(WeightsTest, SynthDependsOnTheSeedAndNotOnThreads) {
  WriteSmall("one", 7, 1);
  WriteSmall("three", 7, 3);
  WriteSmall("other", 8, 3);
  EXPECT_TRUE(AllFiles(Path("one")) == AllFiles(Path("three")));
  EXPECT_FALSE(AllFiles(Path("one")) == AllFiles(Path("other")));
}

TEST_F(WeightsTest, StoppedSynthLeavesNothing) {
  const auto base = LoadConfig(kGoldenTiny);
  ASSERT_TRUE(base.ok());
  ThreadPool pool(1);
  const SynthOptions options{.config = *base, .out = Path("stopped")};
  const Status status =
      WriteSynthCheckpoint(options, pool, [](uint64_t, uint64_t) { return false; });
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(fs::exists(Path("stopped")));
  fs::create_directory(Path("full"));
  std::ofstream(Path("full/x")) << "mine";
  EXPECT_FALSE(WriteSynthCheckpoint({.config = *base, .out = Path("full")}, pool, {}).ok());
  EXPECT_TRUE(fs::exists(Path("full/x")));
}

TEST_F(WeightsTest, WrongTensorsAreRefusedByName) {
  WriteSmall("a");
  using Tensors = std::vector<TensorInfo>;
  EXPECT_EQ(BindEdited("a", [](Tensors&, Config&) {}), "ok");
  const auto expect = [&](const auto& edit, const std::string& part) {
    const std::string message = BindEdited("a", edit);
    EXPECT_NE(message.find(part), std::string::npos) << message << "\nexpected: " << part;
  };
  // Every tensor of the main model is needed.
  const auto ckpt = Checkpoint::Open(Path("a"));
  ASSERT_TRUE(ckpt.ok());
  for (size_t i = 0; i < (*ckpt)->tensors().size(); i += 97) {
    const std::string name = (*ckpt)->tensors()[i].name;
    expect([&](Tensors& t, Config&) { t.erase(t.begin() + static_cast<ptrdiff_t>(i)); },
           "tensor '" + name + "' is missing");
  }
  expect([](Tensors& t, Config&) { Tensor(t, "layers.0.attn.wkv.weight").dtype = DType::kI8; },
         "'layers.0.attn.wkv.weight' is I8, expected F8_E4M3, BF16 or F32");
  expect([](Tensors& t, Config&) { Tensor(t, "layers.0.attn.wkv.scale").dtype = DType::kI8; },
         "'layers.0.attn.wkv.scale' is I8, expected F8_E8M0 or F32");
  expect([](Tensors& t, Config&) { std::ranges::reverse(Tensor(t, "embed.weight").shape); },
         "'embed.weight' has shape [");
  expect([](Tensors& t, Config&) { Tensor(t, "norm.weight").shape.push_back(1); },
         "'norm.weight' has shape [");
  expect([](Tensors& t, Config&) { Tensor(t, "norm.weight").name = "layers.0.gorm.weight"; },
         "'norm.weight' is missing");
  std::vector<uint8_t> table;
  const auto edit_table = [&](int64_t id) {
    return [&table, id](Tensors& t, Config&) {
      TensorInfo& info = Tensor(t, "layers.0.ffn.gate.tid2eid");
      table.assign(info.data, info.data + info.bytes);
      std::memcpy(table.data(), &id, sizeof(id));
      info.data = table.data();
    };
  };
  expect(edit_table(-1), "expert -1 for token 0");
  expect(edit_table(int64_t{1} << 40), "expert 1099511627776 for token 0");
}

TEST_F(WeightsTest, ConfigsThatLieAboutTheWeightsAreRefused) {
  WriteSmall("a");
  using Tensors = std::vector<TensorInfo>;
  const auto expect = [&](const auto& lie, const std::string& part) {
    const std::string message = BindEdited("a", [&](Tensors&, Config& c) { lie(c); });
    EXPECT_NE(message.find(part), std::string::npos) << message << "\nexpected: " << part;
  };
  expect([](Config& c) { ++c.vocab_size; }, "'embed.weight' has shape [300, ");
  expect([](Config& c) { --c.num_hidden_layers; }, "is none that config.json implies");
  expect([](Config& c) { --c.n_routed_experts; }, "gate.weight' has shape");
  expect([](Config& c) { c.num_hash_layers = 0; }, "gate.bias' is missing");
  expect([](Config& c) { std::ranges::fill(c.compress_ratios, 0u); }, "is none that config.json");
}

TEST_F(WeightsTest, AMissingMtpBlockIsNoError) {
  WriteSmall("a");
  const std::string message = BindEdited("a", [](std::vector<TensorInfo>& t, Config&) {
    std::erase_if(t, [](const TensorInfo& info) { return info.name.starts_with("mtp."); });
  });
  EXPECT_EQ(message, "ok");
}

TEST_F(WeightsTest, IndexAndShardsMustAgree) {
  WriteSmall("a");
  const std::string index_path = Path("a/model.safetensors.index.json");
  const std::string index = *io::ReadFile(index_path, 1 << 24);
  const auto open_with = [&](const std::string& from, const std::string& to) {
    std::string text = index;
    const size_t at = text.find(from);
    CACHALOT_CHECK(at != std::string::npos);
    text.replace(at, from.size(), to);
    std::ofstream(index_path) << text;
    const auto ckpt = Checkpoint::Open(Path("a"));
    return ckpt.ok() ? std::string("ok") : ckpt.error().message;
  };
  EXPECT_NE(open_with("\"embed.weight\"", "\"ember.weight\"").find("the index says nowhere"),
            std::string::npos);
  EXPECT_NE(open_with("{", "{\"weight_map\": {\"x\": \"gone.safetensors\"}, ").find("gone"),
            std::string::npos);
  std::ofstream(index_path) << index;
  for (const auto& entry : fs::directory_iterator(Path("a"))) {
    if (entry.path().filename().string().starts_with("model-00001")) fs::remove(entry.path());
  }
  const auto ckpt = Checkpoint::Open(Path("a"));
  ASSERT_FALSE(ckpt.ok());
  EXPECT_EQ(ckpt.error().code, ErrorCode::kNotFound);
  EXPECT_NE(ckpt.error().message.find("is the download complete?"), std::string::npos);
}

// ---- a checkpoint of Flash's size, without its data -------------------------------------------

std::string ShardOf(const std::string& tensor) {
  if (tensor.starts_with("layers.")) return StrCat("layer", std::stoul(tensor.substr(7)));
  if (tensor.starts_with("mtp.")) return "mtp";
  return tensor == "embed.weight" ? "embed" : "head";
}

std::string HeaderText(const std::vector<StoredTensor>& members) {
  std::string text = "{";
  uint64_t at = 0;
  for (const StoredTensor& t : members) {
    text += StrCat(at > 0 ? "," : "", "\"", t.name, "\":{\"dtype\":\"", DTypeName(t.dtype),
                   "\",\"shape\":[", fmt::format("{}", fmt::join(t.shape, ",")),
                   "],\"data_offsets\":[", at, ",", at + t.bytes(), "]}");
    at += t.bytes();
  }
  return text + "}";
}

// Header and length as released, zeros unwritten; only expert tables, which are read, have bytes.
void WriteSparseShard(const std::string& path, const std::vector<StoredTensor>& members) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0) << path;
  const std::string header = HeaderText(members);
  const uint64_t length = header.size();
  uint64_t size = sizeof(length) + header.size();
  bool ok = pwrite(fd, &length, sizeof(length), 0) == sizeof(length);
  ok &= pwrite(fd, header.data(), header.size(), sizeof(length)) ==
        static_cast<ssize_t>(header.size());
  for (const StoredTensor& t : members) {
    if (t.dtype == DType::kI64) {
      std::vector<int64_t> ids(t.bytes() / sizeof(int64_t));
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int64_t>(i % t.shape[1]);
      ok &= pwrite(fd, ids.data(), t.bytes(), static_cast<off_t>(size)) ==
            static_cast<ssize_t>(t.bytes());
    }
    size += t.bytes();
  }
  ok &= ftruncate(fd, static_cast<off_t>(size)) == 0;
  close(fd);
  ASSERT_TRUE(ok) << path << ": " << std::strerror(errno);
}

bool HasSparseFiles(const std::string& dir) {
  const std::string path = dir + "/probe";
  constexpr off_t kProbeBytes = off_t{1} << 26;
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  struct stat info {};
  const bool ok = fd >= 0 && ftruncate(fd, kProbeBytes) == 0 && fstat(fd, &info) == 0 &&
                  info.st_blocks * 512 < kProbeBytes / 2;
  if (fd >= 0) close(fd);
  return ok;
}

TEST_F(WeightsTest, A160GBCheckpointOpensInSeconds) {
  if (!HasSparseFiles(dir_)) GTEST_SKIP() << "SKIPPED: no sparse files in " << dir_;
  const auto config = PublishedConfig("flash");
  ASSERT_TRUE(config.ok());
  std::map<std::string, std::vector<StoredTensor>> shards;
  std::string map_text;
  for (StoredTensor& t : ListTensors(*config)) {
    map_text += StrCat(map_text.empty() ? "" : ",", "\"", t.name, "\":\"", ShardOf(t.name), "\"");
    shards[ShardOf(t.name)].push_back(std::move(t));
  }
  EXPECT_EQ(shards.size(), 46u);
  for (const auto& [name, members] : shards) WriteSparseShard(Path(name), members);
  std::ofstream(Path("model.safetensors.index.json")) << "{\"weight_map\":{" << map_text << "}}";
  std::ofstream(Path("config.json")) << ConfigToJson(*config);

  const auto start = std::chrono::steady_clock::now();
  const auto weights = LoadWeights(dir_);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(weights.ok()) << weights.error().message;
  EXPECT_EQ((*weights)->storage->tensors().size(), 69187u);
  EXPECT_EQ((*weights)->storage->total_bytes(), 159609485896u);
  EXPECT_TRUE((*weights)->mtp.has_value());
  RecordProperty("seconds", std::to_string(elapsed.count()));
  std::cout << "opened and bound in " << elapsed.count() << " s\n";
  // Two orders above a release build on an idle machine; a look-up that walks all tensors is past.
  EXPECT_LT(elapsed.count(), 20.0);
}

}  // namespace
}  // namespace cachalot::model
