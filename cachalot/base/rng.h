// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: a pure function of (key, counter), so any draw can be repeated
// without replaying the ones before it, on any thread, in any order.
#pragma once

#include <cstdint>

namespace cachalot {

// Finalizer of SplitMix64 [Steele, Lea, Flood 2014]: a bijection of 64 bits with full avalanche.
constexpr uint64_t Mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// 64 random bits for (seed, a, b); distinct triples give independent-looking bits.
constexpr uint64_t CounterRandom(uint64_t seed, uint64_t a, uint64_t b) {
  return Mix64(Mix64(Mix64(seed) ^ a) ^ b);
}

// Uniform in (0, 1): never 0 or 1, so that -log(-log(u)) is finite. 53 bits, centered.
constexpr double UniformOpen(uint64_t bits) {
  return (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52;
}

}  // namespace cachalot
