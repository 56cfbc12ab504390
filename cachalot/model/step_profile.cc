// SPDX-License-Identifier: Apache-2.0
#include "cachalot/model/step_profile.h"

#include "cachalot/base/check.h"

namespace cachalot::model {
namespace {

struct OpRow {
  StepOp op;
  StepOpKind kind;
  std::string_view name;
  std::string_view words;
};

constexpr StepOpKind kProduct = StepOpKind::kProduct;
constexpr StepOpKind kAttention = StepOpKind::kAttention;
constexpr StepOpKind kRest = StepOpKind::kRest;

constexpr std::array<OpRow, kNumStepOps> kRows = {{
    {StepOp::kEmbed, kRest, "embed", "rows of the embedding into the streams"},
    {StepOp::kHyperConnection, kRest, "mHC", "fn u, HcPre, HcPost, hc_head"},
    {StepOp::kNorm, kRest, "norm", "RMSNorm of rows and heads"},
    {StepOp::kRound, kRest, "round", "inputs of products, jobs collected"},
    {StepOp::kQueryKv, kProduct, "wq_a wkv", "with compressors and weights_proj"},
    {StepOp::kQueryUp, kProduct, "wq_b", "with the indexer's"},
    {StepOp::kRope, kRest, "rope", "rotations, Hadamard, FP4 of index queries"},
    {StepOp::kStoreKv, kRest, "store KV", "window, tails, entries and keys"},
    {StepOp::kIndexer, kAttention, "indexer", "scores and top-k"},
    {StepOp::kAttention, kAttention, "attention", "window and entries"},
    {StepOp::kOutputDown, kProduct, "wo_a", ""},
    {StepOp::kOutputUp, kProduct, "wo_b", ""},
    {StepOp::kGate, kRest, "gate", "the router's matrix"},
    {StepOp::kRouting, kRest, "routing", "scores, top-k, grouping"},
    {StepOp::kExpertWait, kRest, "wait", "for experts from disk"},
    {StepOp::kExpertsUp, kProduct, "w1 w3", "routed and shared experts"},
    {StepOp::kSwiGlu, kRest, "SwiGLU", ""},
    {StepOp::kExpertsDown, kProduct, "w2", "routed and shared experts"},
    {StepOp::kCombine, kRest, "combine", "sum over a token's experts"},
    {StepOp::kHead, kProduct, "head", ""},
    {StepOp::kOther, kRest, "other", "plan, cos and sin, copies of outputs"},
}};

const OpRow& RowOf(StepOp op) {
  const OpRow& row = kRows[static_cast<size_t>(op)];
  CACHALOT_DCHECK(row.op == op);
  return row;
}

}  // namespace

std::string_view StepOpName(StepOp op) { return RowOf(op).name; }
std::string_view StepOpWords(StepOp op) { return RowOf(op).words; }
StepOpKind KindOf(StepOp op) { return RowOf(op).kind; }

double StepProfile::total_seconds() const {
  double sum = 0;
  for (const double s : seconds_) sum += s;
  return sum;
}

double StepProfile::seconds(StepOpKind kind) const {
  double sum = 0;
  for (const OpRow& row : kRows) {
    if (row.kind == kind) sum += seconds(row.op);
  }
  return sum;
}

}  // namespace cachalot::model
