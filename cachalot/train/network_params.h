// SPDX-License-Identifier: Apache-2.0
// The parameters of a set, arranged as the network uses them. Views: the set outlives them.
// [model.md 2]
#pragma once

#include <optional>
#include <vector>

#include "cachalot/model/config.h"
#include "cachalot/train/hyper.h"
#include "cachalot/train/matrix.h"
#include "cachalot/train/moe.h"
#include "cachalot/train/parameters.h"

namespace cachalot::train {

template <typename T>
struct CompressorParams {
  Weight<T> wkv, wgate;  // [c hd, D]
  Weight<T> ape;         // [r, c hd]
  Weight<T> norm;        // [1, hd]
};

template <typename T>
struct IndexerParams {
  Weight<T> wq_b;          // [index_n_heads * index_head_dim, qr]
  Weight<T> weights_proj;  // [index_n_heads, D]
  CompressorParams<T> compressor;
};

template <typename T>
struct AttentionParams {
  size_t ratio = 0;
  Weight<T> attn_sink;  // [1, H]
  Weight<T> wq_a, q_norm, wq_b, wkv, kv_norm, wo_a, wo_b;
  std::optional<CompressorParams<T>> compressor;
  std::optional<IndexerParams<T>> indexer;
};

template <typename T>
struct FfnParams {
  Weight<T> gate;                      // [E, D]
  const T* gate_bias = nullptr;        // [E]; null in hash layers
  const ExpertTable* table = nullptr;  // hash layers
  MoeParams<T> moe;
};

template <typename T>
struct LayerParams {
  Weight<T> attn_norm, ffn_norm;
  HyperWeights<T> hc_attn, hc_ffn;
  AttentionParams<T> attn;
  FfnParams<T> ffn;
};

template <typename T>
struct MtpParams {
  LayerParams<T> layer;
  Weight<T> e_proj, h_proj, enorm, hnorm, norm;
  HyperWeights<T> hc_head;
};

template <typename T>
struct NetworkParams {
  Weight<T> embed, norm, head;
  HyperWeights<T> hc_head;
  std::vector<LayerParams<T>> layers;
  std::optional<MtpParams<T>> mtp;
};

// Every tensor that `config` implies must be in the set: a missing one is a bug (sets come from
// MakeParameters). With `bf16`, products of all matrices but the router's and mHC's may round their
// operands: those two decide, and are small.
template <typename T>
NetworkParams<T> BindParameters(const model::Config& config, ParameterSetT<T>& set, bool bf16);

}  // namespace cachalot::train
