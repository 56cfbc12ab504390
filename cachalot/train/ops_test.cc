// SPDX-License-Identifier: Apache-2.0
// Every op pair against finite differences in float64.
#include <gtest/gtest.h>

#include <deque>

#include "cachalot/kernels/rope.h"
#include "cachalot/train/attention.h"
#include "cachalot/train/gradient_check.h"
#include "cachalot/train/hyper.h"
#include "cachalot/train/indexer.h"
#include "cachalot/train/linear.h"
#include "cachalot/train/loss.h"
#include "cachalot/train/moe.h"
#include "cachalot/train/norm.h"
#include "cachalot/train/pool.h"
#include "cachalot/train/residual_gain.h"
#include "cachalot/train/router.h"

namespace cachalot::train {
namespace {

using Mat = Matrix<double>;

class OpsTest : public testing::Test {
 protected:
  ThreadPool pool_{2};
  kernels::Context ctx_{&pool_, kernels::Path::kSimd, kernels::Target::kScalar};
};

// Two samples of 11 and 6 tokens.
TrainBatch TwoSamples() {
  TrainBatch batch;
  std::vector<uint32_t> tokens;
  for (uint32_t i = 0; i < 20; ++i) tokens.push_back(i * 7 % 5);
  AppendSample(tokens.data(), 11, batch);
  AppendSample(tokens.data() + 3, 6, batch);
  return batch;
}

TEST_F(OpsTest, Linear) {
  Variable x("x", 5, 7, 1);
  Variable w("w", 3, 7, 2);
  const Variable probe("probe", 5, 3, 3);
  const auto loss = [&] {
    Mat y(5, 3);
    LinearForward<double>(x.value.view(), w.weight(), y.view(), ctx_);
    return Probe(y.view(), probe.value.view());
  };
  LinearBackward<double>(x.value.view(), w.weight(), probe.value.view(), x.grad.view(), ctx_);
  ExpectGradients({&x, &w}, loss);
}

TEST_F(OpsTest, RmsNormWithAndWithoutWeight) {
  for (const bool weighted : {true, false}) {
    Variable x("x", 70, 9, 4);  // more than one block of tokens
    Variable w("w", 1, 9, 5);
    const Variable probe("probe", 70, 9, 6);
    const Weight<double> weight = weighted ? w.weight() : Weight<double>();
    NormSaved<double> saved;
    Mat y(70, 9);
    const auto loss = [&] {
      RmsNormForward<double>(x.value.view(), weight, 1e-6, y.view(), saved, ctx_);
      return Probe(y.view(), probe.value.view());
    };
    loss();
    RmsNormBackward<double>(x.value.view(), weight, saved, probe.value.view(), x.grad.view(), ctx_);
    ExpectGradients({&x, &w}, loss);  // without: w has no gradient, and none is found
  }
}

TEST_F(OpsTest, RotationAndItsInverse) {
  const std::vector<uint32_t> positions = {0, 5, 17};
  const RotaryTable<double> table =
      MakeRotaryTable<double>(kernels::RopeFrequencies(100.0f, 6, nullptr), 20);
  for (const bool inverse : {false, true}) {
    Variable x("x", 6, 10, 7);
    const Variable probe("probe", 6, 10, 8);
    const auto loss = [&] {
      Mat y(6, 10);
      std::ranges::copy(x.values(), y.data());
      Rotate<double>(y.view(), 2, positions, table, inverse, ctx_);
      return Probe(y.view(), probe.value.view());
    };
    std::copy_n(probe.value.data(), 60, x.grad.data());
    Rotate<double>(x.grad.view(), 2, positions, table, !inverse, ctx_);
    ExpectGradients({&x}, loss);
  }
}

class HyperTest : public OpsTest, public testing::WithParamInterface<ResidualMap> {};
INSTANTIATE_TEST_SUITE_P(AllMaps, HyperTest,
                         testing::Values(ResidualMap::kSinkhorn, ResidualMap::kUnconstrained,
                                         ResidualMap::kIdentity));

TEST_P(HyperTest, HyperConnections) {
  constexpr size_t kM = 4, kD = 6, kT = 19;
  Variable x("streams", kT, kM * kD, 9);
  Variable fn("fn", 24, kM * kD, 10);
  Variable base("base", 1, 24, 11);
  Variable scale("scale", 1, 3, 12, 0.5, 1.0);
  const Variable probe_y("probe y", kT, kD, 13);
  const Variable probe_next("probe next", kT, kM * kD, 14);
  Variable z("z", kT, kD, 15);
  const HyperWeights<double> w{fn.weight(), base.weight(), scale.weight()};
  const HyperConfig config{.map = GetParam(), .streams = kM};
  HyperSaved<double> saved;
  Mat y(kT, kD);
  Mat next(kT, kM * kD);
  const auto loss = [&] {
    HyperMapsForward<double>(x.value.view(), w, config, saved, ctx_);
    HyperPreForward<double>(x.value.view(), saved, y.view(), ctx_);
    HyperPostForward<double>(z.value.view(), x.value.view(), saved, next.view(), ctx_);
    return Probe(y.view(), probe_y.value.view()) + Probe(next.view(), probe_next.value.view());
  };
  loss();
  // Columns of comb sum to one: the last step.
  for (size_t k = 0; k < kM && GetParam() != ResidualMap::kUnconstrained; ++k) {
    double sum = 0;
    for (size_t j = 0; j < kM; ++j) sum += saved.comb.view().Row(3)[j * kM + k];
    EXPECT_NEAR(sum, 1.0, 1e-5);
  }
  HyperGradients<double> gradients;
  std::copy_n(probe_next.value.data(), kT * kM * kD, x.grad.data());
  HyperPostBackward<double>(z.value.view(), x.value.view(), saved, x.grad.view(), z.grad.view(),
                            gradients, ctx_);
  HyperPreBackward<double>(x.value.view(), w, config, saved, probe_y.value.view(), gradients,
                           x.grad.view(), ctx_);
  ExpectGradients({&x, &fn, &base, &scale, &z}, loss);
}

TEST_F(OpsTest, GainOfTheCompositeMap) {
  // Two tokens; the second one's maps are the identity.
  const std::vector<double> first = {1, 0.5, 0, 1, /**/ 1, 0, 0, 1};
  const std::vector<double> second = {2, 0, 0, -1, /**/ 1, 0, 0, 1};
  const std::vector<MatView<const double>> maps = {{first.data(), 2, 4}, {second.data(), 2, 4}};
  // Token 0: rows of the first map sum to 1.5 and 1; the product is {2, -0.5; 0, -1}.
  EXPECT_EQ(CompositeGains<double>(maps, 2), (std::vector<double>{1.25, 1.75}));
}

TEST_F(OpsTest, HyperHead) {
  constexpr size_t kM = 3, kD = 5, kT = 7;
  Variable x("streams", kT, kM * kD, 16);
  Variable fn("fn", kM, kM * kD, 17);
  Variable base("base", 1, kM, 18);
  Variable scale("scale", 1, 1, 19, 0.5, 1.0);
  const Variable probe("probe", kT, kD, 20);
  const HyperWeights<double> w{fn.weight(), base.weight(), scale.weight()};
  const HyperConfig config{.streams = kM};
  HyperSaved<double> saved;
  Mat y(kT, kD);
  const auto loss = [&] {
    HyperHeadForward<double>(x.value.view(), w, config, y.view(), saved, ctx_);
    return Probe(y.view(), probe.value.view());
  };
  loss();
  HyperGradients<double> gradients;
  HyperHeadBackward<double>(x.value.view(), w, config, saved, probe.value.view(), gradients,
                            x.grad.view(), ctx_);
  ExpectGradients({&x, &fn, &base, &scale}, loss);
}

// Window only, all visible entries, and a choice of entries with gaps.
TEST_F(OpsTest, Attention) {
  constexpr size_t kH = 3, kD = 5;
  const TrainBatch batch = TwoSamples();
  const size_t tokens = batch.num_tokens();
  for (const size_t ratio : {size_t{0}, size_t{2}}) {
    const EntryPlan plan = MakeEntryPlan(batch, ratio);
    for (const bool sparse : {false, true}) {
      if (sparse && ratio == 0) continue;
      EntrySelection selection;
      if (sparse) {
        selection.begin.push_back(0);
        for (size_t s = 0; s < 2; ++s) {
          for (size_t p = 0; p < batch.sample_length(s); ++p) {
            for (uint32_t j = 0; j < (p + 1) / 2; ++j) {
              if ((j + p) % 3 != 0) selection.ids.push_back(j);
            }
            selection.begin.push_back(selection.ids.size());
          }
        }
      }
      Variable q("q", tokens, kH * kD, 21);
      Variable kv("kv", tokens, kD, 22);
      Variable entries("entries", plan.num_entries(), kD, 23);
      Variable sink("sink", 1, kH, 24);
      const Variable probe("probe", tokens, kH * kD, 25);
      const AttentionConfig config{.heads = kH, .head_dim = kD, .window = 4, .scale = 0.7};
      const AttentionLayout layout{config, batch, plan, selection};
      const AttentionInputs<double> in{q.value.view(), kv.value.view(), entries.value.view()};
      AttentionSaved<double> saved;
      Mat out(tokens, kH * kD);
      const auto loss = [&] {
        AttentionForward<double>(in, sink.weight(), layout, out.view(), saved, {}, ctx_);
        return Probe(out.view(), probe.value.view());
      };
      loss();
      Mat delta(tokens, kH);
      for (size_t i = 0; i < tokens * kH; ++i) {
        delta.data()[i] = 0;
        for (size_t k = 0; k < kD; ++k) {
          delta.data()[i] += out.data()[i * kD + k] * probe.value.data()[i * kD + k];
        }
      }
      AttentionBackward<double>(in, sink.weight(), layout, saved, delta.view(),
                                {.d_out = probe.value.view(),
                                 .d_q = q.grad.view(),
                                 .d_kv = kv.grad.view(),
                                 .d_entries = entries.grad.view()},
                                ctx_);
      SCOPED_TRACE(testing::Message() << "ratio " << ratio << " sparse " << sparse);
      std::vector<Variable*> variables = {&q, &kv, &sink};
      if (ratio != 0) variables.push_back(&entries);
      ExpectGradients(variables, loss);
    }
  }
}

TEST_F(OpsTest, PoolWithPositionBias) {
  constexpr size_t kHead = 3;
  const TrainBatch batch = TwoSamples();
  const size_t tokens = batch.num_tokens();
  for (const bool overlap : {false, true}) {
    const size_t width = overlap ? 2 * kHead : kHead;
    const EntryPlan plan = MakeEntryPlan(batch, 4);
    Variable k("k", tokens, width, 26);
    Variable gate("gate", tokens, width, 27);
    Variable ape("ape", 4, width, 28);
    const Variable probe("probe", plan.num_entries(), kHead, 29);
    Mat biased(tokens, width);
    const auto loss = [&] {
      std::ranges::copy(gate.values(), biased.data());
      AddPositionBias<double>(ape.weight(), batch, biased.view(), ctx_);
      Mat y(plan.num_entries(), kHead);
      PoolForward<double>(k.value.view(), biased.view(), plan, overlap, y.view(), ctx_);
      return Probe(y.view(), probe.value.view());
    };
    loss();
    PoolBackward<double>(k.value.view(), biased.view(), plan, overlap, probe.value.view(),
                         k.grad.view(), gate.grad.view(), ctx_);
    PositionBiasBackward<double>(ape.weight(), batch, gate.grad.view(), ctx_);
    ExpectGradients({&k, &gate, &ape}, loss);
  }
}

TEST_F(OpsTest, RoutingWeightsAndBalanceLoss) {
  const TrainBatch batch = TwoSamples();
  const size_t tokens = batch.num_tokens();
  Variable z("z", tokens, 5, 30, 3.0);
  z.value.data()[7] = 25.0;  // beyond where softplus is the identity
  std::vector<uint32_t> ids(tokens * 2);
  const MatView<uint32_t> chosen(ids.data(), tokens, 2);
  ChooseExperts<double>(z.value.view(), nullptr, chosen, ctx_);
  const Variable probe("probe", tokens, 2, 31);
  Mat weights(tokens, 2);
  const auto routing = [&] {
    RoutingWeightsForward<double>(z.value.view(), chosen, 1.5, weights.view(), ctx_);
    return Probe(weights.view(), probe.value.view());
  };
  routing();
  RoutingWeightsBackward<double>(z.value.view(), chosen, 1.5, probe.value.view(), z.grad.view(),
                                 ctx_);
  ExpectGradients({&z}, routing);

  z.grad.ResizeZero(tokens, 5);
  BalanceLoss<double>(z.value.view(), chosen, batch, 0.3, z.grad.view(), ctx_);
  ExpectGradients(
      {&z}, [&] { return 0.3 * BalanceLoss<double>(z.value.view(), chosen, batch, 0, {}, ctx_); });
}

TEST_F(OpsTest, MoeWithSharedExpert) {
  constexpr size_t kT = 9, kD = 4, kI = 3, kE = 5, kShared = 6;
  Variable x("x", kT, kD, 32, 2.0);
  Variable weights("weights", kT, 2, 33);
  std::deque<Variable> params;
  MoeParams<double> moe{.experts = {}, .shared = {}, .limit = 0.8};  // low enough to clamp
  for (size_t e = 0; e <= kE; ++e) {
    const size_t width = e < kE ? kI : kShared;
    const uint64_t seed = 40 + 3 * e;
    ExpertParams<double> p{params.emplace_back("w1", width, kD, seed).weight(),
                           params.emplace_back("w3", width, kD, seed + 1).weight(),
                           params.emplace_back("w2", kD, width, seed + 2).weight()};
    if (e < kE) moe.experts.push_back(p);
    if (e == kE) moe.shared = p;
  }
  std::vector<uint32_t> ids;
  for (uint32_t t = 0; t < kT; ++t) {
    ids.push_back(t % 3);  // expert 4 gets no token
    ids.push_back(3);
  }
  const MatView<const uint32_t> chosen(ids.data(), kT, 2);
  const Variable probe("probe", kT, kD, 70);
  MoeSaved<double> saved;
  MoeScratch<double> scratch;
  Mat z(kT, kD);
  const auto loss = [&] {
    MoeGateUpForward<double>(x.value.view(), chosen, moe, saved, scratch, ctx_);
    MoeForward<double>(weights.value.view(), moe, saved, z.view(), scratch, ctx_);
    return Probe(z.view(), probe.value.view());
  };
  loss();
  MoeBackward<double>(x.value.view(), weights.value.view(), moe, saved, probe.value.view(),
                      x.grad.view(), weights.grad.view(), scratch, ctx_);
  std::vector<Variable*> variables = {&x, &weights};
  for (Variable& p : params) variables.push_back(&p);
  ExpectGradients(variables, loss);
}

TEST_F(OpsTest, EmbeddingAndHeadLoss) {
  Variable embed("embed", 5, 4, 71);
  Variable head("head", 5, 4, 72);
  const std::vector<uint32_t> ids = {1, 3, 1, 0};
  const std::vector<uint32_t> targets = {2, kNoTarget, 4, 0};
  HeadScratch<double> scratch;
  Mat y(4, 4);
  Mat d_y(4, 4);
  d_y.ResizeZero(4, 4);
  const auto loss = [&] {
    EmbedForward<double>(embed.weight(), ids, y.view(), ctx_);
    return 0.5 * HeadLoss<double>(y.view(), head.weight(), targets, 0, {}, scratch, ctx_);
  };
  loss();
  HeadLoss<double>(y.view(), head.weight(), targets, 0.5, d_y.view(), scratch, ctx_);
  EmbedBackward<double>(embed.weight(), ids, d_y.view(), ctx_);
  ExpectGradients({&embed, &head}, loss);
}

TEST_F(OpsTest, IndexerScoresAndItsLoss) {
  constexpr size_t kHeads = 3, kDim = 4;
  const TrainBatch batch = TwoSamples();
  const size_t tokens = batch.num_tokens();
  const EntryPlan plan = MakeEntryPlan(batch, 2);
  const size_t most = 5;
  Variable q("q", tokens, kHeads * kDim, 73);
  Variable weights("weights", tokens, kHeads, 74);
  Variable keys("keys", plan.num_entries(), kDim, 75);
  const Variable mass("mass", tokens, most, 76, 0.5, 0.6);  // positive
  const AttentionConfig config{};
  for (const bool sparse : {false, true}) {
    const IndexerInputs<double> in{kHeads, 3, q.value.view(), weights.value.view(),
                                   keys.value.view()};
    Mat scores(tokens, most);
    EntrySelection selection;
    if (sparse) selection = SelectEntries<double>(in, batch, plan, scores.view(), ctx_);
    const AttentionLayout layout{config, batch, plan, selection};
    Mat d_scores(tokens, most);
    const auto loss = [&] {
      SelectEntries<double>(in, batch, plan, scores.view(), ctx_);
      return 0.4 * IndexerLoss<double>(scores.view(), mass.value.view(), layout, 0, d_scores.view(),
                                       ctx_);
    };
    loss();
    IndexerLoss<double>(scores.view(), mass.value.view(), layout, 0.4, d_scores.view(), ctx_);
    keys.grad.ResizeZero(plan.num_entries(), kDim);
    IndexerBackward<double>(in, batch, plan, d_scores.view(),
                            {q.grad.view(), weights.grad.view(), keys.grad.view()}, ctx_);
    ExpectGradients({&q, &weights, &keys}, loss);
  }
}

TEST_F(OpsTest, SelectionKeepsTheLargestScores) {
  const TrainBatch batch = TwoSamples();
  const EntryPlan plan = MakeEntryPlan(batch, 2);
  const Variable q("q", batch.num_tokens(), 4, 77);
  const Variable weights("weights", batch.num_tokens(), 2, 78);
  const Variable keys("keys", plan.num_entries(), 2, 79);
  const IndexerInputs<double> in{2, 2, q.value.view(), weights.value.view(), keys.value.view()};
  Mat scores(batch.num_tokens(), 5);
  const EntrySelection chosen = SelectEntries<double>(in, batch, plan, scores.view(), ctx_);
  const size_t last = 10;  // of the first sample: sees 5 entries
  ASSERT_EQ(chosen.begin[last + 1] - chosen.begin[last], 2u);
  const std::span<const uint32_t> ids(chosen.ids.data() + chosen.begin[last], 2);
  EXPECT_LT(ids[0], ids[1]);
  const std::span<double> row = scores.view().Row(last);
  const double floor = std::min(row[ids[0]], row[ids[1]]);
  size_t above = 0;
  for (const double s : row) above += s > floor ? 1 : 0;
  EXPECT_LE(above, 1u);
}

}  // namespace
}  // namespace cachalot::train
