// SPDX-License-Identifier: Apache-2.0
// Losses and every gradient of the tiny model in ../shared/golden/grad, computed in float64 by an
// independent implementation. [shared/golden/README.md]
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>

#include "cachalot/checkpoint/checkpoint.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/kernels/context.h"
#include "cachalot/model/config.h"
#include "cachalot/train/network.h"
#include "cachalot/train/parameters.h"

namespace cachalot::train {
namespace {

constexpr size_t kTokens = 260;  // of 262: two more are the last targets
constexpr double kTolerance = 1e-3;

// Beside the repository or, in a work tree, one level further up.
std::string GoldenDir() {
  for (const char* up : {"/../shared/golden/grad", "/../../shared/golden/grad"}) {
    const std::string dir = std::string(CACHALOT_SOURCE_DIR) + up;
    if (std::filesystem::exists(dir + "/expected.safetensors")) return dir;
  }
  return "";
}

class Expected {
 public:
  static Result<Expected> Open(const std::string& path) {
    CACHALOT_TRY(io::MappedFile file, io::MappedFile::Open(path));
    CACHALOT_TRY(auto tensors, checkpoint::ParseSafetensors(path, file.data(), file.size()));
    return Expected{std::move(file), std::move(tensors)};
  }
  const checkpoint::TensorInfo* Find(const std::string& name) const {
    for (const checkpoint::TensorInfo& t : tensors) {
      if (t.name == name) return &t;
    }
    return nullptr;
  }
  double Scalar(const std::string& name) const {
    float value = 0;
    std::memcpy(&value, Find(name)->data, sizeof(value));
    return double{value};
  }

  io::MappedFile file;
  std::vector<checkpoint::TensorInfo> tensors;
};

TrainBatch GoldenBatch(const Expected& expected) {
  TrainBatch batch;
  const checkpoint::TensorInfo& ids = *expected.Find("ids");
  const size_t row = ids.shape[1];
  std::vector<uint32_t> tokens(ids.num_elements());
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::memcpy(&tokens[i], ids.data + 8 * i, sizeof(uint32_t));
  }
  for (size_t s = 0; s < ids.shape[0]; ++s) AppendSample(tokens.data() + s * row, kTokens, batch);
  return batch;
}

// ||g - ref|| / ||ref||; without a reference (no gradient expected) the norm of g itself.
double Distance(const Parameter& p, const checkpoint::TensorInfo* info) {
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    float want = 0;
    if (info != nullptr) std::memcpy(&want, info->data + 4 * i, sizeof(want));
    const double difference = double{p.grad[i]} - double{want};
    error += difference * difference;
    norm += double{want} * double{want};
  }
  return std::sqrt(info == nullptr ? error : error / norm);
}

class GoldenGradients : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = GoldenDir();
    if (dir_.empty()) {
      GTEST_SKIP() << "NOT CHECKED: ../shared/golden/grad is not there, so no gradient was "
                      "compared with the independent implementation";
    }
  }
  // Worst distance over all tensors of the loss named `loss`.
  void Check(const std::string& loss, const LossScales& scales) {
    auto expected = Expected::Open(dir_ + "/expected.safetensors");
    auto set = LoadParameters(dir_);
    auto config = model::LoadConfig(dir_);
    ASSERT_TRUE(expected.ok() && set.ok() && config.ok());
    ThreadPool pool(2);
    const kernels::Context ctx{&pool, kernels::Path::kSimd, kernels::SupportedTargets().front()};
    Network<float> network(*config, *set, ctx);
    const TrainBatch batch = GoldenBatch(*expected);
    const LossSums sums = network.Run(batch, {.scales = scales});
    EXPECT_NEAR(sums.mean_ce(), expected->Scalar("loss.ce"), 1e-5);
    EXPECT_NEAR(sums.mean_mtp(), expected->Scalar("loss.mtp"), 1e-5);
    EXPECT_NEAR(sums.mean_balance(), expected->Scalar("loss.balance"), 1e-5);
    double worst = 0;
    size_t compared = 0;
    for (const Parameter& p : set->parameters) {
      const checkpoint::TensorInfo* info = expected->Find("grad." + loss + "." + p.name);
      const double distance = Distance(p, info);
      EXPECT_LE(distance, info == nullptr ? 0.0 : kTolerance) << p.name;
      if (info != nullptr) worst = std::max(worst, distance);
      compared += info != nullptr ? 1 : 0;
    }
    RecordProperty("worst", std::to_string(worst));
    std::printf("%s: %zu tensors, worst relative distance %.2e\n", loss.c_str(), compared, worst);
    size_t listed = 0;
    for (const checkpoint::TensorInfo& t : expected->tensors) {
      listed += t.name.starts_with("grad." + loss + ".") ? 1 : 0;
    }
    EXPECT_EQ(compared, listed);
  }

  std::string dir_;
};

TEST_F(GoldenGradients, NextToken) { Check("ce", {.ce = 1.0 / (2 * kTokens)}); }
TEST_F(GoldenGradients, Mtp) { Check("mtp", {.mtp = 1.0 / (2 * kTokens)}); }
TEST_F(GoldenGradients, Balance) { Check("balance", {.balance = 0.5}); }

}  // namespace
}  // namespace cachalot::train
