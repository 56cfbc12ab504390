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

ExpertGroups GroupByExpert(MatView<const uint32_t> ids, size_t num_experts) {
  ExpertGroups groups;
  groups.first_row.assign(num_experts + 1, 0);
  groups.row_token.resize(ids.rows * ids.cols);
  groups.slot_row.resize(ids.rows * ids.cols);
  for (size_t t = 0; t < ids.rows; ++t) {
    for (const uint32_t e : ids.Row(t)) ++groups.first_row[e + 1];
  }
  for (size_t e = 0; e < num_experts; ++e) groups.first_row[e + 1] += groups.first_row[e];
  std::vector<size_t> next(groups.first_row.begin(), groups.first_row.end() - 1);
  for (size_t t = 0; t < ids.rows; ++t) {
    for (size_t a = 0; a < ids.cols; ++a) {
      const size_t row = next[ids.Row(t)[a]]++;
      groups.row_token[row] = static_cast<uint32_t>(t);
      groups.slot_row[t * ids.cols + a] = static_cast<uint32_t>(row);
    }
  }
  return groups;
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

// The rows of one expert as jobs; experts without rows have none.
template <typename T>
class ExpertJobs {
 public:
  ExpertJobs(const ExpertGroups& groups, const kernels::Context& ctx)
      : groups_(groups), ctx_(ctx) {}
  MatView<const T> Rows(MatView<const T> x, size_t e) const { return x.Rows(First(e), Count(e)); }
  MatView<T> Rows(MatView<T> x, size_t e) const { return x.Rows(First(e), Count(e)); }

  // y = x W^T for the W of each expert.
  template <typename Pick>
  void Forward(MatView<const T> x, const MoeParams<T>& params, Pick&& pick, MatView<T> y) {
    ForExperts(params, [&](size_t e) {
      jobs_.push_back({.a = Rows(x, e),
                       .b = pick(params.experts[e]).value,
                       .c = Rows(y, e),
                       .b_transposed = true,
                       .bf16 = pick(params.experts[e]).bf16});
    });
  }
  // d_x (+)= d_y W
  template <typename Pick>
  void Input(MatView<const T> d_y, const MoeParams<T>& params, Pick&& pick, bool accumulate,
             MatView<T> d_x) {
    ForExperts(params, [&](size_t e) {
      jobs_.push_back({.a = Rows(d_y, e),
                       .b = pick(params.experts[e]).value,
                       .c = Rows(d_x, e),
                       .accumulate = accumulate,
                       .bf16 = pick(params.experts[e]).bf16});
    });
  }
  // W.grad += d_y^T x
  template <typename Pick>
  void Gradient(MatView<const T> d_y, MatView<const T> x, const MoeParams<T>& params, Pick&& pick) {
    ForExperts(params, [&](size_t e) {
      jobs_.push_back({.a = Rows(d_y, e),
                       .b = Rows(x, e),
                       .c = pick(params.experts[e]).grad,
                       .a_transposed = true,
                       .accumulate = true,
                       .bf16 = pick(params.experts[e]).bf16});
    });
  }
  void Add(const GemmJobT<T>& job) { jobs_.push_back(job); }
  void Run() {
    Gemm(std::span<const GemmJobT<T>>(jobs_), ctx_);
    jobs_.clear();
  }

 private:
  size_t First(size_t e) const { return groups_.first_row[e]; }
  size_t Count(size_t e) const { return groups_.first_row[e + 1] - groups_.first_row[e]; }
  template <typename Body>
  void ForExperts(const MoeParams<T>& params, Body&& body) const {
    for (size_t e = 0; e < params.experts.size(); ++e) {
      if (Count(e) > 0) body(e);
    }
  }

  const ExpertGroups& groups_;
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
  const size_t rows = saved.groups.row_token.size();
  const MatView<T> x_rows = scratch.rows.Resize(rows, x.cols);
  GatherRows(x, saved.groups, x_rows, ctx);
  ExpertJobs<T> jobs(saved.groups, ctx);
  jobs.Forward(x_rows, params, kW1, saved.gate.Resize(rows, width));
  jobs.Forward(x_rows, params, kW3, saved.up.Resize(rows, width));
  const MatView<T> shared_gate = saved.shared_gate.Resize(x.rows, shared_width);
  const MatView<T> shared_up = saved.shared_up.Resize(x.rows, shared_width);
  jobs.Add(ForwardJob(x, params.shared.w1, false, shared_gate));
  jobs.Add(ForwardJob(x, params.shared.w3, false, shared_up));
  jobs.Run();
}

template <typename T>
void MoeForward(MatView<const T> weights, const MoeParams<T>& params, const MoeSaved<T>& saved,
                MatView<T> z, MoeScratch<T>& scratch, const kernels::Context& ctx) {
  const size_t rows = saved.groups.row_token.size();
  const size_t width = saved.gate.cols();
  T* row_weights = scratch.row_weights.Resize(rows, 1).data;
  for (size_t slot = 0; slot < rows; ++slot) {
    row_weights[saved.groups.slot_row[slot]] = weights.data[slot];
  }
  const T limit = static_cast<T>(params.limit);
  const MatView<T> h = scratch.h.Resize(rows, width);
  const MatView<T> out = scratch.out.Resize(rows, z.cols);
  SwiGluForward<T>(saved.gate.view(), saved.up.view(), limit, row_weights, h, ctx);
  ExpertJobs<T> jobs(saved.groups, ctx);
  jobs.Forward(h, params, kW2, out);
  jobs.Run();
  CombineRows<T>(out, saved.groups, z, ctx);
  const MatView<T> shared_h = scratch.h.Resize(z.rows, saved.shared_gate.cols());
  SwiGluForward<T>(saved.shared_gate.view(), saved.shared_up.view(), limit, nullptr, shared_h, ctx);
  Gemm(ForwardJob<T>(shared_h, params.shared.w2, true, z), ctx);
}

template <typename T>
void MoeBackward(MatView<const T> x, MatView<const T> weights, const MoeParams<T>& params,
                 const MoeSaved<T>& saved, MatView<const T> d_z, MatView<T> d_x,
                 MatView<T> d_weights, MoeScratch<T>& scratch, const kernels::Context& ctx) {
  const ExpertGroups& groups = saved.groups;
  const size_t rows = groups.row_token.size();
  const size_t width = saved.gate.cols();
  T* row_weights = scratch.row_weights.Resize(rows, 1).data;
  for (size_t slot = 0; slot < rows; ++slot) {
    row_weights[groups.slot_row[slot]] = weights.data[slot];
  }
  const MatView<T> d_rows = scratch.out.Resize(rows, x.cols);
  const MatView<T> h = scratch.h.Resize(rows, width);
  const MatView<T> d_gate = scratch.d_gate.Resize(rows, width);
  const MatView<T> d_up = scratch.d_up.Resize(rows, width);
  T* d_row_weights = scratch.d_row_weights.Resize(rows, 1).data;
  const T limit = static_cast<T>(params.limit);
  GatherRows(d_z, groups, d_rows, ctx);
  SwiGluForward<T>(saved.gate.view(), saved.up.view(), limit, row_weights, h, ctx);
  ExpertJobs<T> jobs(groups, ctx);
  jobs.Input(d_rows, params, kW2, false, d_gate);
  jobs.Gradient(d_rows, h, params, kW2);
  jobs.Run();
  SwiGluBackward<T>(saved.gate.view(), saved.up.view(), limit, row_weights, d_gate, d_gate, d_up,
                    d_row_weights, ctx);
  for (size_t slot = 0; slot < rows; ++slot) {
    d_weights.data[slot] = d_row_weights[groups.slot_row[slot]];
  }
  const MatView<T> x_rows = scratch.rows.Resize(rows, x.cols);
  GatherRows(x, groups, x_rows, ctx);
  // d_rows has been read: its memory takes the gradient of the gathered inputs.
  jobs.Input(d_gate, params, kW1, false, d_rows);
  jobs.Gradient(d_gate, x_rows, params, kW1);
  jobs.Gradient(d_up, x_rows, params, kW3);
  jobs.Run();
  jobs.Input(d_up, params, kW3, true, d_rows);
  jobs.Run();
  CombineRows<T>(d_rows, groups, d_x, ctx);
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
