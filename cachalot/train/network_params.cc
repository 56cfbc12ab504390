// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/network_params.h"

#include <string>
#include <unordered_map>

#include "cachalot/base/strings.h"

namespace cachalot::train {
namespace {

constexpr size_t kCsaRatio = 4;

template <typename T>
class Binder {
 public:
  Binder(const model::Config& config, ParameterSetT<T>& set, bool bf16)
      : config_(config), set_(set), bf16_(bf16) {
    for (ParameterT<T>& p : set.parameters) by_name_[p.name] = &p;
  }

  NetworkParams<T> Network() {
    NetworkParams<T> p{.embed = Get("embed.weight"),
                       .norm = Get("norm.weight"),
                       .head = Get("head.weight"),
                       .hc_head = Hyper("hc_head"),
                       .layers = {},
                       .mtp = {}};
    for (uint32_t l = 0; l < config_.num_hidden_layers; ++l) {
      p.layers.push_back(
          Layer(StrCat("layers.", l, "."), config_.compress_ratios[l], config_.is_hash_layer(l)));
    }
    if (config_.draft_kind() == model::DraftKind::kMtp) p.mtp = Mtp("mtp.0.");
    return p;
  }

 private:
  Weight<T> Get(const std::string& name) {
    const auto found = by_name_.find(name);
    CACHALOT_CHECK(found != by_name_.end());
    Weight<T> w(*found->second);
    w.bf16 = bf16_ && !name.ends_with("_fn") && !name.ends_with(".ffn.gate.weight");
    return w;
  }
  HyperWeights<T> Hyper(const std::string& prefix) {
    return {Get(prefix + "_fn"), Get(prefix + "_base"), Get(prefix + "_scale")};
  }
  CompressorParams<T> Compressor(const std::string& prefix) {
    return {Get(prefix + "wkv.weight"), Get(prefix + "wgate.weight"), Get(prefix + "ape"),
            Get(prefix + "norm.weight")};
  }
  AttentionParams<T> Attention(const std::string& prefix, size_t ratio) {
    AttentionParams<T> p;
    p.ratio = ratio;
    p.attn_sink = Get(prefix + "attn_sink");
    p.wq_a = Get(prefix + "wq_a.weight");
    p.q_norm = Get(prefix + "q_norm.weight");
    p.wq_b = Get(prefix + "wq_b.weight");
    p.wkv = Get(prefix + "wkv.weight");
    p.kv_norm = Get(prefix + "kv_norm.weight");
    p.wo_a = Get(prefix + "wo_a.weight");
    p.wo_b = Get(prefix + "wo_b.weight");
    if (ratio != 0) p.compressor = Compressor(prefix + "compressor.");
    if (ratio == kCsaRatio) {
      const std::string indexer = prefix + "indexer.";
      p.indexer = {Get(indexer + "wq_b.weight"), Get(indexer + "weights_proj.weight"),
                   Compressor(indexer + "compressor.")};
    }
    return p;
  }
  ExpertParams<T> Expert(const std::string& prefix) {
    return {Get(prefix + "w1.weight"), Get(prefix + "w3.weight"), Get(prefix + "w2.weight")};
  }
  FfnParams<T> Ffn(const std::string& prefix, bool hash) {
    FfnParams<T> p;
    p.gate = Get(prefix + "gate.weight");
    if (hash) {
      p.table = set_.FindTable(prefix + "gate.tid2eid");
      CACHALOT_CHECK(p.table != nullptr);
    } else {
      p.gate_bias = Get(prefix + "gate.bias").value.data;
    }
    for (uint32_t e = 0; e < config_.n_routed_experts; ++e) {
      p.moe.experts.push_back(Expert(StrCat(prefix, "experts.", e, ".")));
    }
    p.moe.shared = Expert(prefix + "shared_experts.");
    p.moe.limit = double{config_.swiglu_limit};
    return p;
  }
  LayerParams<T> Layer(const std::string& prefix, size_t ratio, bool hash) {
    return {.attn_norm = Get(prefix + "attn_norm.weight"),
            .ffn_norm = Get(prefix + "ffn_norm.weight"),
            .hc_attn = Hyper(prefix + "hc_attn"),
            .hc_ffn = Hyper(prefix + "hc_ffn"),
            .attn = Attention(prefix + "attn.", ratio),
            .ffn = Ffn(prefix + "ffn.", hash)};
  }
  MtpParams<T> Mtp(const std::string& prefix) {
    return {.layer = Layer(prefix, 0, false),
            .e_proj = Get(prefix + "e_proj.weight"),
            .h_proj = Get(prefix + "h_proj.weight"),
            .enorm = Get(prefix + "enorm.weight"),
            .hnorm = Get(prefix + "hnorm.weight"),
            .norm = Get(prefix + "norm.weight"),
            .hc_head = Hyper(prefix + "hc_head")};
  }

  const model::Config& config_;
  ParameterSetT<T>& set_;
  bool bf16_;
  std::unordered_map<std::string, ParameterT<T>*> by_name_;
};

}  // namespace

template <typename T>
NetworkParams<T> BindParameters(const model::Config& config, ParameterSetT<T>& set, bool bf16) {
  return Binder<T>(config, set, bf16).Network();
}

template NetworkParams<float> BindParameters(const model::Config&, ParameterSetT<float>&, bool);
template NetworkParams<double> BindParameters(const model::Config&, ParameterSetT<double>&, bool);

}  // namespace cachalot::train
