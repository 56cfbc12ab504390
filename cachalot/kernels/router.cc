// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/router.h"

#include <algorithm>
#include <cmath>

#include "cachalot/base/check.h"

namespace cachalot::kernels {
namespace {

// sqrt(softplus(z)); softplus(z) = z beyond 20, as the released code has it.
float Score(float z) {
  const double softplus = z > 20.0f ? double{z} : std::log1p(std::exp(double{z}));
  return static_cast<float>(std::sqrt(softplus));
}

// The A largest of values by repeated scans: A is 6 and E a few hundred.
void SelectTop(std::span<const float> values, std::span<uint32_t> ids) {
  for (size_t a = 0; a < ids.size(); ++a) {
    uint32_t best = 0;
    bool found = false;
    for (uint32_t e = 0; e < values.size(); ++e) {
      if (std::ranges::find(ids.first(a), e) != ids.begin() + static_cast<ptrdiff_t>(a)) continue;
      // Strict: a tie keeps the lower id, NaN never displaces a number.
      if (!found || values[e] > values[best] ||
          (std::isnan(values[best]) && !std::isnan(values[e]))) {
        best = e;
        found = true;
      }
    }
    ids[a] = best;
  }
  std::ranges::sort(ids);
}

}  // namespace

void Route(const RouterArgs& args, MatView<uint32_t> ids, MatView<float> weights,
           const Context& ctx) {
  const size_t per_tok = args.num_experts_per_tok;
  CACHALOT_CHECK(ids.cols == per_tok && weights.cols == per_tok && per_tok <= args.z.cols);
  CACHALOT_CHECK(args.fixed.empty() ? args.bias.size() == args.z.cols
                                    : args.fixed.size() == args.z.rows * per_tok);
  const size_t num_experts = args.z.cols;
  ctx.pool->ParallelFor(args.z.rows, [&](size_t t, size_t worker) {
    const std::span<uint32_t> chosen = ids.Row(t);
    if (args.fixed.empty()) {
      const std::span<const float> z = args.z.Row(t);
      uint8_t* scratch = ctx.pool->WorkerScratch(worker, num_experts * sizeof(float));
      const std::span<float> values(reinterpret_cast<float*>(scratch), num_experts);
      for (size_t e = 0; e < num_experts; ++e) values[e] = Score(z[e]) + args.bias[e];
      SelectTop(values, chosen);
    } else {
      std::ranges::copy(args.fixed.subspan(t * per_tok, per_tok), chosen.begin());
      std::ranges::sort(chosen);
    }
    float sum = 0.0f;
    for (size_t a = 0; a < per_tok; ++a) {
      weights.Row(t)[a] = Score(args.z.Row(t)[chosen[a]]);
      sum += weights.Row(t)[a];
    }
    for (float& w : weights.Row(t)) w = w / sum * args.routed_scaling_factor;
  });
}

}  // namespace cachalot::kernels
