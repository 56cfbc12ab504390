// SPDX-License-Identifier: Apache-2.0
// Plain references of the small kernels: scalar float32, one row or vector at a time, the same bits
// on every machine (-ffp-contract=off; transcendental functions in double, rounded once). They stay
// for ever: SIMD is judged against them, and Path::kReference runs them.
#pragma once

#include <cstdint>
#include <span>

namespace cachalot::kernels::ref {

// Sum of a[i] * b[i] over 16 virtual lanes, k ascending, then a fixed tree: a compiler may
// vectorize it for any instruction set without changing a bit.
float Dot(std::span<const float> a, std::span<const float> b);

void RmsNorm(std::span<const float> x, std::span<const float> weight, float eps,
             std::span<float> out);

}  // namespace cachalot::kernels::ref
