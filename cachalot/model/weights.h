// SPDX-License-Identifier: Apache-2.0
// The weights of a model as the forward pass sees them: views into a mapped checkpoint (or a
// trainer's buffers), small vectors widened to float32 once. [model.md 2]
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/checkpoint/checkpoint.h"
#include "cachalot/model/config.h"
#include "cachalot/model/expert_source.h"
#include "cachalot/tensor/matrix.h"
#include "cachalot/threading/placement.h"

namespace cachalot::model {

struct HcWeights {  // mHC of one sublayer, or hc_head
  WeightView fn;    // [(2+M) M, M D] or [M, M D]
  std::vector<float> base;
  std::vector<float> scale;
};

struct CompressorWeights {
  WeightView wkv, wgate;    // [c * hd, D]
  std::vector<float> ape;   // [r, c * hd]
  std::vector<float> norm;  // [hd]
};

struct IndexerWeights {
  WeightView wq_b;          // [index_n_heads * index_head_dim, qr]
  WeightView weights_proj;  // [index_n_heads, D]
  CompressorWeights compressor;
};

struct AttentionWeights {
  std::vector<float> attn_sink;  // [H]
  WeightView wq_a, wq_b, wkv, wo_a, wo_b;
  std::vector<float> q_norm, kv_norm;
  std::optional<CompressorWeights> compressor;  // ratio != 0
  std::optional<IndexerWeights> indexer;        // ratio 4
};

struct ExpertWeights {
  WeightView w1, w3;  // [I, D] gate, up
  WeightView w2;      // [D, I] down
};

struct FfnWeights {
  WeightView gate;                     // [E, D]
  std::vector<float> gate_bias;        // [E]; empty in hash layers
  std::vector<uint32_t> tid2eid;       // [V, A]; hash layers only, validated < E and distinct
  std::vector<ExpertWeights> experts;  // of streamed weights: format and shape, no data
  ExpertWeights shared;
};

struct LayerWeights {
  uint32_t compress_ratio = 0;
  std::vector<float> attn_norm, ffn_norm;
  HcWeights hc_attn, hc_ffn;
  AttentionWeights attn;
  FfnWeights ffn;
};

struct MtpWeights {
  LayerWeights layer;
  WeightView e_proj, h_proj;
  std::vector<float> enorm, hnorm, norm;
  HcWeights hc_head;
};

struct Weights {
  Config config;
  WeightView embed;  // [V, D]
  WeightView head;   // [V, D]
  std::vector<float> norm;
  HcWeights hc_head;
  std::vector<LayerWeights> layers;
  std::optional<MtpWeights> mtp;
  uint64_t version = 0;                                   // KV is keyed by it; a trainer bumps it
  std::shared_ptr<const checkpoint::Checkpoint> storage;  // keeps the mapped bytes alive
  std::shared_ptr<const void> resident;                   // or the copies, of streamed weights
  std::shared_ptr<ExpertSource> expert_source;            // null: all experts are in memory
};

// Binds every tensor that `config` implies, checking name, dtype and shape of each before
// returning; the first mismatch is reported by tensor name, found and expected. MTP tensors may be
// absent (then `mtp` is empty); DSpark stages are recognized and left unbound; a tensor under
// `layers.` that the config does not imply is an error, other extra ones are not. Linear in
// tensors, touches no weight bytes except small vectors and tid2eid.
Result<Weights> BindWeights(const Config& config,
                            std::shared_ptr<const checkpoint::Checkpoint> ckpt);

// How weights come into memory. The default maps the files: nothing is read before it is needed,
// pages are shared with other processes and dropped when memory is short.
struct LoadOptions {
  bool huge_pages = false;    // copies them into anonymous memory of huge pages, never dropped
  bool preload = false;       // reads all of them before returning
  bool lock = false;          // keeps them in memory while they live, preloaded by that
  io::ByteProgress progress;  // of copying and preloading; may be empty
  Placement placement;        // of the workers, for copies [checkpoint/page_owners.h]; may be empty
};

// LoadConfig + Checkpoint::Open + BindWeights. kResourceExhausted without memory for a copy or the
// right to lock it.
Result<std::shared_ptr<const Weights>> LoadWeights(const std::string& dir,
                                                   const LoadOptions& options = {});

}  // namespace cachalot::model
