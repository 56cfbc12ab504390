// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/moe.h"

#include <algorithm>
#include <cmath>

#include "cachalot/kernels/gemm.h"
#include "cachalot/kernels/rows.h"
#include "cachalot/kernels/swiglu.h"
#include "cachalot/train/linear.h"
#include "cachalot/train/reduce.h"

namespace cachalot::train {

using kernels::Gemm;
using kernels::GemmJobT;

template <typename T>
void SwiGluForward(MatView<const T> g, MatView<const T> u, T limit, const T* row_weights,
                   MatView<T> h, const kernels::Context& ctx) {
  if constexpr (std::is_same_v<T, float>) {
    const size_t count = row_weights == nullptr ? 0 : g.rows;
    return kernels::SwiGlu(g, u, limit, {row_weights, count}, h, ctx);
  }
  ForTokenBlocks(g.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      const T weight = row_weights == nullptr ? T{1} : row_weights[r];
      const T* gr = g.Row(r).data();
      const T* ur = u.Row(r).data();
      T* hr = h.Row(r).data();
      for (size_t i = 0; i < g.cols; ++i) {
        const T gate = std::min(gr[i], limit);
        const T up = std::clamp(ur[i], -limit, limit);
        hr[i] = weight * (gate / (T{1} + std::exp(-gate)) * up);
      }
    }
  });
}

template <typename T>
void SwiGluBackward(MatView<const T> g, MatView<const T> u, T limit, const T* row_weights,
                    MatView<const T> d_h, MatView<T> d_g, MatView<T> d_u, T* d_row_weights,
                    const kernels::Context& ctx) {
  const auto row = [&](size_t r) {
    const T weight = row_weights == nullptr ? T{1} : row_weights[r];
    if constexpr (std::is_same_v<T, float>) {
      const float d_weight = kernels::RowsFor(ctx.target)
                                 .swiglu_backward({.g = g.Row(r).data(),
                                                   .u = u.Row(r).data(),
                                                   .d_h = d_h.Row(r).data(),
                                                   .d_g = d_g.Row(r).data(),
                                                   .d_u = d_u.Row(r).data(),
                                                   .size = g.cols,
                                                   .limit = limit,
                                                   .weight = weight});
      if (d_row_weights != nullptr) d_row_weights[r] = d_weight;
      return;
    }
    T lanes[kDotLanes] = {};
    for (size_t i = 0; i < g.cols; ++i) {
      const T gate = std::min(g.Row(r)[i], limit);
      const T up = std::clamp(u.Row(r)[i], -limit, limit);
      const T sigmoid = T{1} / (T{1} + std::exp(-gate));
      const T silu = gate * sigmoid;
      const T d = d_h.Row(r)[i];
      lanes[i % kDotLanes] += d * silu * up;
      // silu' = sigmoid (1 + g (1 - sigmoid)).
      const T d_gate = d * weight * up * sigmoid * (T{1} + gate * (T{1} - sigmoid));
      const T d_up = d * weight * silu;
      d_u.Row(r)[i] = std::abs(u.Row(r)[i]) > limit ? T{0} : d_up;
      d_g.Row(r)[i] = g.Row(r)[i] > limit ? T{0} : d_gate;
    }
    if (d_row_weights != nullptr) d_row_weights[r] = SumLanes(lanes);
  };
  ForTokenBlocks(g.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) row(r);
  });
}

namespace {

template <typename T>
void GatherRows(MatView<const T> x, const ExpertGroups& groups, MatView<T> rows,
                const kernels::Context& ctx) {
  ForTokenBlocks(rows.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      std::copy_n(x.Row(groups.row_token[r]).data(), x.cols, rows.Row(r).data());
    }
  });
}

// z[t] = sum over slots, ascending expert ids, of rows.
template <typename T>
void CombineRows(MatView<const T> rows, const ExpertGroups& groups, MatView<T> z,
                 const kernels::Context& ctx) {
  const size_t slots = groups.slot_row.size() / z.rows;
  ForTokenBlocks(z.rows, ctx, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      T* to = z.Row(t).data();
      for (size_t a = 0; a < slots; ++a) {
        const T* from = rows.Row(groups.slot_row[t * slots + a]).data();
        if (a == 0) {
          std::copy_n(from, z.cols, to);
        } else {
          for (size_t i = 0; i < z.cols; ++i) to[i] += from[i];
        }
      }
    }
  });
}

// Rows at their experts: as they are when all are here, else in `arrived`.
template <typename T>
MatView<T> ToExperts(const MoeParams<T>& params, const ExpertArrivals& arrivals, MatView<T> rows,
                     Matrix<T>& arrived) {
  if (params.exchange == nullptr) return rows;
  const MatView<T> there = arrived.Resize(arrivals.num_rows, rows.cols);
  params.exchange->ToExperts(arrivals, MatView<const T>(rows), there);
  return there;
}

// What experts made of rows, back in the groups' order: as it is when all are here, else in
// `returned`, [num_rows, cols].
template <typename T>
MatView<T> FromExperts(const MoeParams<T>& params, const ExpertArrivals& arrivals,
                       MatView<T> results, size_t num_rows, Matrix<T>& returned) {
  if (params.exchange == nullptr) return results;
  const MatView<T> here = returned.Resize(num_rows, results.cols);
  params.exchange->FromExperts(arrivals, MatView<const T>(results), here);
  return here;
}

// The weight of each row.
template <typename T>
MatView<T> GatherWeights(const T* weights, const ExpertGroups& groups, Matrix<T>& row_weights) {
  const size_t rows = groups.slot_row.size();
  const MatView<T> to = row_weights.Resize(rows, 1);
  for (size_t slot = 0; slot < rows; ++slot) to.data[groups.slot_row[slot]] = weights[slot];
  return to;
}

// The rows of one run as jobs.
template <typename T>
class ExpertJobs {
 public:
  ExpertJobs(const std::vector<ExpertRun>& runs, const kernels::Context& ctx)
      : runs_(runs), ctx_(ctx) {}

  // y = x W^T for the W of each expert.
  template <typename Pick>
  void Forward(MatView<const T> x, const MoeParams<T>& params, Pick&& pick, MatView<T> y) {
    for (const ExpertRun& run : runs_) {
      const Weight<T> w = pick(params.experts[run.expert]);
      jobs_.push_back({.a = x.Rows(run.first, run.count),
                       .b = w.value,
                       .c = y.Rows(run.first, run.count),
                       .b_transposed = true,
                       .bf16 = w.bf16});
    }
  }
  // d_x (+)= d_y W
  template <typename Pick>
  void Input(MatView<const T> d_y, const MoeParams<T>& params, Pick&& pick, bool accumulate,
             MatView<T> d_x) {
    for (const ExpertRun& run : runs_) {
      const Weight<T> w = pick(params.experts[run.expert]);
      jobs_.push_back({.a = d_y.Rows(run.first, run.count),
                       .b = w.value,
                       .c = d_x.Rows(run.first, run.count),
                       .accumulate = accumulate,
                       .bf16 = w.bf16});
    }
  }
  // W.grad += d_y^T x
  template <typename Pick>
  void Gradient(MatView<const T> d_y, MatView<const T> x, const MoeParams<T>& params, Pick&& pick) {
    for (const ExpertRun& run : runs_) {
      const Weight<T> w = pick(params.experts[run.expert]);
      jobs_.push_back({.a = d_y.Rows(run.first, run.count),
                       .b = x.Rows(run.first, run.count),
                       .c = w.GradientOf(run.source),
                       .a_transposed = true,
                       .accumulate = true,
                       .bf16 = w.bf16});
    }
  }
  void Add(const GemmJobT<T>& job) { jobs_.push_back(job); }
  void Run() {
    Gemm(std::span<const GemmJobT<T>>(jobs_), ctx_);
    jobs_.clear();
  }

 private:
  const std::vector<ExpertRun>& runs_;
  const kernels::Context& ctx_;
  std::vector<GemmJobT<T>> jobs_;
};

constexpr auto kW1 = [](const auto& expert) { return expert.w1; };
constexpr auto kW2 = [](const auto& expert) { return expert.w2; };
constexpr auto kW3 = [](const auto& expert) { return expert.w3; };

template <typename T>
GemmJobT<T> ForwardJob(MatView<const T> x, const Weight<T>& w, bool accumulate, MatView<T> y) {
  return {
      .a = x, .b = w.value, .c = y, .b_transposed = true, .accumulate = accumulate, .bf16 = w.bf16};
}

template <typename T>
void SharedBackward(MatView<const T> x, const MoeParams<T>& params, const MoeSaved<T>& saved,
                    MatView<const T> d_z, MatView<T> d_x, MoeScratch<T>& scratch,
                    const kernels::Context& ctx) {
  const MatView<const T> gate = saved.shared_gate.view();
  const MatView<const T> up = saved.shared_up.view();
  const T limit = static_cast<T>(params.limit);
  const MatView<T> h = scratch.h.Resize(gate.rows, gate.cols);
  const MatView<T> d_gate = scratch.d_gate.Resize(gate.rows, gate.cols);
  const MatView<T> d_up = scratch.d_up.Resize(gate.rows, gate.cols);
  SwiGluForward<T>(gate, up, limit, nullptr, h, ctx);
  Gemm(
      GemmJobT<T>{
          .a = d_z, .b = params.shared.w2.value, .c = d_gate, .bf16 = params.shared.w2.bf16},
      ctx);
  LinearBackward<T>(h, params.shared.w2, d_z, {}, ctx);
  SwiGluBackward<T>(gate, up, limit, nullptr, d_gate, d_gate, d_up, nullptr, ctx);
  LinearBackward<T>(x, params.shared.w1, d_gate, d_x, ctx);
  LinearBackward<T>(x, params.shared.w3, d_up, d_x, ctx);
}

}  // namespace

template <typename T>
void MoeGateUpForward(MatView<const T> x, MatView<const uint32_t> ids, const MoeParams<T>& params,
                      MoeSaved<T>& saved, MoeScratch<T>& scratch, const kernels::Context& ctx) {
  const size_t width = params.experts[0].w1.value.rows;
  const size_t shared_width = params.shared.w1.value.rows;
  saved.groups = GroupByExpert(ids, params.experts.size());
  saved.arrivals = params.exchange == nullptr ? LocalArrivals(saved.groups)
                                              : params.exchange->Announce(saved.groups);
  const ExpertArrivals& arrivals = saved.arrivals;
  const size_t rows = saved.groups.row_token.size();
  const MatView<T> own_rows = scratch.rows.Resize(rows, x.cols);
  GatherRows(x, saved.groups, own_rows, ctx);
  const MatView<T> x_rows = ToExperts(params, arrivals, own_rows, scratch.arrived);
  ExpertJobs<T> jobs(arrivals.runs, ctx);
  jobs.Forward(x_rows, params, kW1, saved.gate.Resize(arrivals.num_rows, width));
  jobs.Forward(x_rows, params, kW3, saved.up.Resize(arrivals.num_rows, width));
  const MatView<T> shared_gate = saved.shared_gate.Resize(x.rows, shared_width);
  const MatView<T> shared_up = saved.shared_up.Resize(x.rows, shared_width);
  if (x.rows > 0) {
    jobs.Add(ForwardJob(x, params.shared.w1, false, shared_gate));
    jobs.Add(ForwardJob(x, params.shared.w3, false, shared_up));
  }
  jobs.Run();
}

template <typename T>
void MoeForward(MatView<const T> weights, const MoeParams<T>& params, const MoeSaved<T>& saved,
                MatView<T> z, MoeScratch<T>& scratch, const kernels::Context& ctx) {
  const size_t rows = saved.groups.row_token.size();
  const size_t width = saved.gate.cols();
  const ExpertArrivals& arrivals = saved.arrivals;
  const MatView<T> row_weights =
      ToExperts(params, arrivals, GatherWeights(weights.data, saved.groups, scratch.row_weights),
                scratch.arrived_weights);
  const T limit = static_cast<T>(params.limit);
  const MatView<T> h = scratch.h.Resize(arrivals.num_rows, width);
  const MatView<T> out = scratch.out.Resize(arrivals.num_rows, z.cols);
  SwiGluForward<T>(saved.gate.view(), saved.up.view(), limit, row_weights.data, h, ctx);
  ExpertJobs<T> jobs(arrivals.runs, ctx);
  jobs.Forward(h, params, kW2, out);
  jobs.Run();
  const MatView<const T> returned = FromExperts(params, arrivals, out, rows, scratch.rows);
  if (z.rows == 0) return;
  CombineRows<T>(returned, saved.groups, z, ctx);
  const MatView<T> shared_h = scratch.h.Resize(z.rows, saved.shared_gate.cols());
  SwiGluForward<T>(saved.shared_gate.view(), saved.shared_up.view(), limit, nullptr, shared_h, ctx);
  Gemm(ForwardJob<T>(shared_h, params.shared.w2, true, z), ctx);
}

template <typename T>
void MoeBackward(MatView<const T> x, MatView<const T> weights, const MoeParams<T>& params,
                 const MoeSaved<T>& saved, MatView<const T> d_z, MatView<T> d_x,
                 MatView<T> d_weights, MoeScratch<T>& scratch, const kernels::Context& ctx) {
  const ExpertGroups& groups = saved.groups;
  const ExpertArrivals& arrivals = saved.arrivals;
  const size_t rows = groups.row_token.size();
  const size_t width = saved.gate.cols();
  const MatView<T> row_weights =
      ToExperts(params, arrivals, GatherWeights(weights.data, groups, scratch.row_weights),
                scratch.arrived_weights);
  const MatView<T> own_d_rows = scratch.out.Resize(rows, x.cols);
  GatherRows(d_z, groups, own_d_rows, ctx);
  const MatView<T> d_rows = ToExperts(params, arrivals, own_d_rows, scratch.d_arrived);
  const MatView<T> h = scratch.h.Resize(arrivals.num_rows, width);
  const MatView<T> d_gate = scratch.d_gate.Resize(arrivals.num_rows, width);
  const MatView<T> d_up = scratch.d_up.Resize(arrivals.num_rows, width);
  const MatView<T> d_row_weights = scratch.d_row_weights.Resize(arrivals.num_rows, 1);
  const T limit = static_cast<T>(params.limit);
  SwiGluForward<T>(saved.gate.view(), saved.up.view(), limit, row_weights.data, h, ctx);
  ExpertJobs<T> jobs(arrivals.runs, ctx);
  jobs.Input(d_rows, params, kW2, false, d_gate);
  jobs.Gradient(d_rows, h, params, kW2);
  jobs.Run();
  SwiGluBackward<T>(saved.gate.view(), saved.up.view(), limit, row_weights.data, d_gate, d_gate,
                    d_up, d_row_weights.data, ctx);
  const MatView<const T> own_d_weights =
      FromExperts(params, arrivals, d_row_weights, rows, scratch.row_weights);
  for (size_t slot = 0; slot < rows; ++slot) {
    d_weights.data[slot] = own_d_weights.data[groups.slot_row[slot]];
  }
  const MatView<T> own_rows = scratch.rows.Resize(rows, x.cols);
  GatherRows(x, groups, own_rows, ctx);
  const MatView<T> x_rows = ToExperts(params, arrivals, own_rows, scratch.arrived);
  // d_rows has been read: its memory takes the gradient of the gathered inputs.
  jobs.Input(d_gate, params, kW1, false, d_rows);
  jobs.Gradient(d_gate, x_rows, params, kW1);
  jobs.Gradient(d_up, x_rows, params, kW3);
  jobs.Run();
  jobs.Input(d_up, params, kW3, true, d_rows);
  jobs.Run();
  const MatView<const T> returned = FromExperts(params, arrivals, d_rows, rows, scratch.out);
  if (x.rows == 0) return;
  CombineRows<T>(returned, groups, d_x, ctx);
  SharedBackward(x, params, saved, d_z, d_x, scratch, ctx);
}

#define CACHALOT_INSTANTIATE(T)                                                                   \
  template void SwiGluForward(MatView<const T>, MatView<const T>, T, const T*, MatView<T>,        \
                              const kernels::Context&);                                           \
  template void SwiGluBackward(MatView<const T>, MatView<const T>, T, const T*, MatView<const T>, \
                               MatView<T>, MatView<T>, T*, const kernels::Context&);              \
  template void MoeGateUpForward(MatView<const T>, MatView<const uint32_t>, const MoeParams<T>&,  \
                                 MoeSaved<T>&, MoeScratch<T>&, const kernels::Context&);          \
  template void MoeForward(MatView<const T>, const MoeParams<T>&, const MoeSaved<T>&, MatView<T>, \
                           MoeScratch<T>&, const kernels::Context&);                              \
  template void MoeBackward(MatView<const T>, MatView<const T>, const MoeParams<T>&,              \
                            const MoeSaved<T>&, MatView<const T>, MatView<T>, MatView<T>,         \
                            MoeScratch<T>&, const kernels::Context&);
CACHALOT_INSTANTIATE(float)
CACHALOT_INSTANTIATE(double)
#undef CACHALOT_INSTANTIATE

}  // namespace cachalot::train
