// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/activation_format.h"

#include <type_traits>
#include <vector>

#include "cachalot/base/check.h"
#include "cachalot/kernels/quantize.h"
#include "cachalot/tensor/kv_layout.h"
#include "cachalot/train/reduce.h"

namespace cachalot::train {

template <typename T>
void RoundTripKvEntries(MatView<T> entries, size_t rope_dim, const kernels::Context& ctx) {
  CACHALOT_CHECK(entries.cols >= rope_dim && (entries.cols - rope_dim) % kKvScaleBlock == 0);
  if constexpr (std::is_same_v<T, float>) {
    const KvLayout layout{.format = KvFormat::kNative,
                          .head_dim = static_cast<uint32_t>(entries.cols),
                          .rope_dim = static_cast<uint32_t>(rope_dim)};
    ForTokenBlocks(entries.rows, ctx, [&](size_t begin, size_t end) {
      std::vector<uint8_t> bytes(layout.row_bytes());
      const KvRows row(layout, bytes.data(), 1);
      for (size_t i = begin; i < end; ++i) {
        kernels::StoreKvEntry(entries.Row(i), row, 0);
        kernels::LoadKvEntry(row, 0, entries.Row(i));
      }
    });
  } else {
    CACHALOT_CHECK(entries.rows == 0);
  }
}

template <typename T>
void RoundTripIndexRows(MatView<T> rows, const kernels::Context& ctx) {
  if constexpr (std::is_same_v<T, float>) {
    kernels::Hadamard(rows, ctx);
    kernels::RoundTripFp4(rows, ctx);
    kernels::Hadamard(rows, ctx);
  } else {
    CACHALOT_CHECK(rows.rows == 0);
  }
}

template void RoundTripKvEntries(MatView<float>, size_t, const kernels::Context&);
template void RoundTripKvEntries(MatView<double>, size_t, const kernels::Context&);
template void RoundTripIndexRows(MatView<float>, const kernels::Context&);
template void RoundTripIndexRows(MatView<double>, const kernels::Context&);

}  // namespace cachalot::train
