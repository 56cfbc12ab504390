// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cachalot/kernels/attention_test_util.h"
#include "cachalot/numeric/formats.h"

namespace cachalot::kernels {
namespace {

Context SerialContext() {
  static ThreadPool pool(1);
  return {&pool, Path::kReference, Target::kScalar};
}

TEST(KvEntry, LoadsBackTheRoundedValues) {
  const KvLayout layout{.head_dim = 512, .rope_dim = 64, .key_dim = 128};
  EXPECT_EQ(layout.row_bytes(), 584u + 68u);
  std::vector<uint8_t> bytes(3 * layout.row_bytes() + 1, 0xEE);
  const KvRows rows(layout, bytes.data() + 1, 3);
  const std::vector<float> entry = TestVector(512, 1);
  const std::vector<float> key = TestVector(128, 2);
  StoreKvEntry(entry, rows, 1);
  StoreIndexKey(key, rows, 1);
  std::vector<float> got(512);
  LoadKvEntry(rows, 1, got);
  for (size_t at = 0; at < 448; at += 64) {
    std::vector<uint8_t> codes(64);
    const uint8_t scale = QuantizeBlockE4M3(std::span(entry).subspan(at, 64), codes);
    for (size_t i = 0; i < 64; ++i) {
      EXPECT_EQ(got[at + i], E4M3ToFloat(codes[i]) * E8M0ToFloat(scale));
      EXPECT_EQ(got[at + i], RoundToBF16(got[at + i]));
    }
  }
  for (size_t i = 448; i < 512; ++i) EXPECT_EQ(got[i], RoundToBF16(entry[i]));
  EXPECT_EQ(rows.Scales(1)[7], 0);

  std::vector<float> got_key(128);
  LoadIndexKey(rows, 1, got_key);
  std::vector<float> want_key = key;
  RoundTripFp4({want_key.data(), 1, 128}, SerialContext());
  EXPECT_EQ(got_key, want_key);

  // Storing what was loaded changes nothing, and neighbors were not touched.
  StoreKvEntry(got, rows, 2);
  std::vector<float> again(512);
  LoadKvEntry(rows, 2, again);
  EXPECT_EQ(again, got);
  for (size_t i = 0; i < layout.value_bytes(); ++i) EXPECT_EQ(rows.Values(0)[i], 0xEE);
  EXPECT_EQ(bytes[0], 0xEE);
}

TEST(KvEntry, Float32FormatIsExact) {
  const KvLayout layout{.format = KvFormat::kF32, .head_dim = 40, .rope_dim = 8, .key_dim = 16};
  EXPECT_EQ(layout.row_bytes(), 4u * 56u);
  std::vector<uint8_t> bytes(2 * layout.row_bytes());
  const KvRows rows(layout, bytes.data(), 2);
  const std::vector<float> entry = TestVector(40, 1);
  const std::vector<float> key = TestVector(16, 2);
  StoreKvEntry(entry, rows, 1);
  StoreIndexKey(key, rows, 1);
  std::vector<float> got(40), got_key(16);
  LoadKvEntry(rows, 1, got);
  LoadIndexKey(rows, 1, got_key);
  EXPECT_EQ(got, entry);
  EXPECT_EQ(got_key, key);
}

TEST(RoundTripFp8, WorksInBlocksOf128WithAShortLast) {
  const std::vector<float> x = TestVector(2 * 300, 3);
  std::vector<float> out(x.size());
  RoundTripFp8({x.data(), 2, 300}, {out.data(), 2, 300}, SerialContext());
  for (size_t i = 0; i < x.size(); ++i) {
    // 3 bits of mantissa, or half a subnormal step of a block whose maximum is at most 1.
    EXPECT_LE(std::fabs(out[i] - x[i]), std::max(std::fabs(x[i]) * 0x1p-4f, 0x1p-18f));
  }
  std::vector<float> again = out;
  RoundTripFp8({again.data(), 2, 300}, {again.data(), 2, 300}, SerialContext());
  EXPECT_EQ(again, out);
}

TEST(Hadamard, IsItsOwnInverseAndMatchesTheMatrix) {
  for (size_t n : {1u, 2u, 8u, 128u}) {
    const std::vector<float> x = TestVector(n, 4);
    std::vector<float> y = x;
    Hadamard({y.data(), 1, n}, SerialContext());
    for (size_t i = 0; i < n; ++i) {
      double want = 0;
      for (size_t j = 0; j < n; ++j) {
        want += (__builtin_popcountll(i & j) % 2 != 0 ? -1.0 : 1.0) * double{x[j]};
      }
      EXPECT_NEAR(y[i], want / std::sqrt(static_cast<double>(n)), 10 * 0x1p-24 * std::sqrt(n));
    }
    Hadamard({y.data(), 1, n}, SerialContext());
    for (size_t i = 0; i < n; ++i) EXPECT_NEAR(y[i], x[i], 20 * 0x1p-24 * std::sqrt(n));
  }
}

}  // namespace
}  // namespace cachalot::kernels
