// SPDX-License-Identifier: Apache-2.0
#include "cachalot/model/config.h"

#include <bit>
#include <cmath>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::model {
namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;

// Bounds far above any released model (Pro: V 129,280, D 7,168, E 384) and small enough that every
// product of sizes in this code base fits 64 bits.
constexpr uint32_t kMaxSize = 1u << 24;
constexpr uint32_t kMaxCount = 1u << 16;
// Layers times experts (Pro: 24,576 with MTP): what a walk over all tensors costs.
constexpr uint64_t kMaxLayerExperts = 1u << 18;
constexpr float kMaxTheta = 1e9f;
constexpr double kMinPositive = 1e-30;  // a normal float, and its square root is one

// Reads fields and keeps the first complaint.
class FieldReader {
 public:
  FieldReader(const Json& json, std::string_view name) : json_(json), name_(name) {}

  bool Has(const char* field) const { return json_.contains(field) && !json_[field].is_null(); }

  // An integer in [min, max]; absent: `out` keeps its default if `optional`.
  void Size(const char* field, uint32_t& out, uint32_t min, uint32_t max, bool optional = false) {
    if (!Has(field)) {
      if (!optional) Complain(field, "is missing");
      return;
    }
    const Json& value = json_[field];
    const bool ok =
        value.is_number_unsigned() && value.get<uint64_t>() >= min && value.get<uint64_t>() <= max;
    if (!ok) {
      Complain(field, StrCat("is ", Shown(value), ", expected an integer from ", min, " to ", max));
      return;
    }
    out = value.get<uint32_t>();
  }

  // A number in (0, max].
  void Positive(const char* field, float& out, float max, bool optional = false) {
    if (!Has(field)) {
      if (!optional) Complain(field, "is missing");
      return;
    }
    const Json& value = json_[field];
    // Tested as stored: a positive double may be zero or infinite as a float.
    const double number = value.is_number() ? value.get<double>() : 0.0;
    if (!(number >= kMinPositive && number <= static_cast<double>(max))) {
      Complain(field, StrCat("is ", Shown(value), ", expected a number above 0, at most ", max));
      return;
    }
    out = value.get<float>();
  }

  void Text(const char* field, std::string& out) {
    if (!Has(field) || !json_[field].is_string()) {
      Complain(field, Has(field) ? StrCat("is ", Shown(json_[field]), ", expected a string")
                                 : "is missing");
      return;
    }
    out = json_[field].get<std::string>();
  }

  void Sizes(const char* field, std::vector<uint32_t>& out, bool optional = false) {
    if (!Has(field)) {
      if (!optional) Complain(field, "is missing");
      return;
    }
    const Json& value = json_[field];
    bool ok = value.is_array() && value.size() <= kMaxCount;
    for (const Json& item : ok ? value : Json::array()) {
      ok = ok && item.is_number_unsigned() && item.get<uint64_t>() <= kMaxSize;
    }
    if (!ok) return Complain(field, StrCat("is ", Shown(value), ", expected a list of sizes"));
    out.clear();
    for (const Json& item : value) out.push_back(item.get<uint32_t>());
  }

  // A field whose only supported value is `expected`; absent is fine.
  void Expect(const char* field, const Json& expected) {
    if (Has(field) && json_[field] != expected) {
      Complain(field,
               StrCat("is ", Shown(json_[field]), ", only ", expected.dump(), " is supported"));
    }
  }

  void Require(bool condition, const char* field, const std::string& found_and_expected) {
    if (!condition) Complain(field, found_and_expected);
  }

  const Json& operator[](const char* field) const { return json_[field]; }
  Status status() const { return error_ ? Status(*error_) : Status(); }

 private:
  static std::string Shown(const Json& value) {
    std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    constexpr size_t kMaxShown = 60;
    if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "...";
    return text;
  }
  void Complain(const char* field, const std::string& what) {
    if (!error_) error_ = Error{ErrorCode::kInvalidArgument, StrCat(name_, ": ", field, " ", what)};
  }

  const Json& json_;
  std::string_view name_;
  std::optional<Error> error_;
};

Status CheckModelType(const Json& json, std::string_view name) {
  if (!json.is_object()) {
    return Error{ErrorCode::kInvalidArgument, StrCat(name, ": is no JSON object")};
  }
  const std::string found = json.contains("model_type") && json["model_type"].is_string()
                                ? json["model_type"].get<std::string>()
                                : "(missing)";
  if (found == "deepseek_v4") return {};
  const char* hint =
      found == "deepseek_v41" ? "; V4.1 is a different architecture and is not supported" : "";
  return Error{ErrorCode::kVersionMismatch,
               StrCat(name, ": model_type is '", found, "', expected 'deepseek_v4'", hint)};
}

void ReadSizes(FieldReader& in, Config& c) {
  in.Size("vocab_size", c.vocab_size, 1, kMaxSize);
  in.Size("hidden_size", c.hidden_size, 2, kMaxCount);
  in.Size("num_hidden_layers", c.num_hidden_layers, 1, 1024);
  in.Size("num_attention_heads", c.num_attention_heads, 1, 4096);
  in.Size("head_dim", c.head_dim, 4, 4096);
  in.Size("qk_rope_head_dim", c.qk_rope_head_dim, 2, 4096);
  in.Size("q_lora_rank", c.q_lora_rank, 1, kMaxCount);
  in.Size("o_groups", c.o_groups, 1, 4096);
  in.Size("o_lora_rank", c.o_lora_rank, 1, kMaxCount);
  in.Size("sliding_window", c.sliding_window, 1, kMaxCount);
  in.Size("index_n_heads", c.index_n_heads, 1, 4096);
  in.Size("index_head_dim", c.index_head_dim, 2, 1024);
  in.Size("index_topk", c.index_topk, 1, kMaxCount);
  c.max_position_embeddings = 1u << 20;  // every release's; some re-saved configs leave it out
  in.Size("max_position_embeddings", c.max_position_embeddings, 1, 1u << 30, /*optional=*/true);
  in.Size("n_routed_experts", c.n_routed_experts, 1, 4096);
  in.Size("n_shared_experts", c.n_shared_experts, 1, 1, /*optional=*/true);
  in.Size("num_experts_per_tok", c.num_experts_per_tok, 1, 4096);
  in.Size("moe_intermediate_size", c.moe_intermediate_size, 2, kMaxCount);
  in.Size("num_hash_layers", c.num_hash_layers, 0, 1024, /*optional=*/true);
  in.Size("hc_mult", c.hc_mult, 1, 16);
  in.Size("hc_sinkhorn_iters", c.hc_sinkhorn_iters, 1, 1000);
  in.Size("num_nextn_predict_layers", c.num_nextn_predict_layers, 0, 1, /*optional=*/true);
  in.Size("bos_token_id", c.bos_token_id, 0, kMaxSize, /*optional=*/true);
  in.Size("eos_token_id", c.eos_token_id, 0, kMaxSize, /*optional=*/true);
  in.Sizes("compress_ratios", c.compress_ratios);
}

void ReadScalars(FieldReader& in, Config& c) {
  in.Positive("rope_theta", c.rope_theta, kMaxTheta);
  in.Positive("compress_rope_theta", c.compress_rope_theta, kMaxTheta);
  in.Positive("routed_scaling_factor", c.routed_scaling_factor, 1e4f);
  in.Positive("swiglu_limit", c.swiglu_limit, 1e30f, /*optional=*/true);
  in.Positive("hc_eps", c.hc_eps, 1.0f);
  in.Positive("rms_norm_eps", c.rms_norm_eps, 1.0f);
  in.Expect("scoring_func", "sqrtsoftplus");
  in.Expect("topk_method", "noaux_tc");
  in.Expect("norm_topk_prob", true);
  in.Expect("hidden_act", "silu");
  in.Expect("num_key_value_heads", 1);
  in.Expect("tie_word_embeddings", false);
  in.Expect("attention_bias", false);
}

void ReadYarn(FieldReader& in, std::string_view name, Config& c) {
  if (!in.Has("rope_scaling")) return;
  const Json& scaling = in["rope_scaling"];
  in.Require(scaling.is_object(), "rope_scaling", "is no object");
  if (!scaling.is_object()) return;
  const std::string section = StrCat(name, ": rope_scaling");
  FieldReader yarn(scaling, section);
  // transformers re-saves `type` as `rope_type`.
  const char* type = yarn.Has("type") ? "type" : "rope_type";
  yarn.Require(yarn.Has(type) && scaling[type] == "yarn", "type", "must be \"yarn\"");
  yarn.Positive("factor", c.yarn_factor, 1e4f);
  yarn.Positive("beta_fast", c.yarn_beta_fast, 1e4f, /*optional=*/true);
  yarn.Positive("beta_slow", c.yarn_beta_slow, 1e4f, /*optional=*/true);
  yarn.Size("original_max_position_embeddings", c.yarn_original_max_position_embeddings, 1,
            1u << 30);
  if (const Status status = yarn.status(); !status.ok()) {
    in.Require(false, "rope_scaling", StrCat("is not usable: ", status.error().message));
  }
  c.has_yarn = true;
}

void ReadQuantization(FieldReader& in, Config& c) {
  c.quantized = in.Has("quantization_config");
  if (c.quantized) {
    const Json& q = in["quantization_config"];
    const bool fp8 = q.is_object() && q.value("quant_method", Json()) == "fp8" &&
                     q.value("weight_block_size", Json({128, 128})) == Json({128, 128});
    in.Require(fp8, "quantization_config", "must be fp8 with weight_block_size [128, 128]");
  }
  c.expert_dtype = c.quantized ? ExpertDtype::kFp4 : ExpertDtype::kUnquantized;
  if (!in.Has("expert_dtype")) return;
  const Json& dtype = in["expert_dtype"];
  in.Require(dtype == "fp4" || dtype == "fp8", "expert_dtype", "must be \"fp4\" or \"fp8\"");
  c.expert_dtype = dtype == "fp8" ? ExpertDtype::kFp8 : ExpertDtype::kFp4;
  c.scales_f32 = dtype == "fp8";  // the -Base checkpoints
}

void ReadDspark(FieldReader& in, Config& c) {
  if (!in.Has("dspark_block_size")) return;
  in.Size("dspark_block_size", c.dspark_block_size, 1, 64);
  in.Size("dspark_noise_token_id", c.dspark_noise_token_id, 0, kMaxSize);
  in.Size("dspark_markov_rank", c.dspark_markov_rank, 1, kMaxCount);
  in.Sizes("dspark_target_layer_ids", c.dspark_target_layer_ids);
  constexpr size_t kMaxTargets = 16;  // released: 3
  in.Require(
      !c.dspark_target_layer_ids.empty() && c.dspark_target_layer_ids.size() <= kMaxTargets,
      "dspark_target_layer_ids",
      StrCat("has ", c.dspark_target_layer_ids.size(), " entries, expected 1 to ", kMaxTargets));
  for (const uint32_t layer : c.dspark_target_layer_ids) {
    in.Require(layer < c.num_hidden_layers, "dspark_target_layer_ids",
               StrCat("names layer ", layer, ", expected below ", c.num_hidden_layers));
  }
}

// Relations between fields that the forward pass relies on.
void CheckRelations(FieldReader& in, const Config& c) {
  in.Require(c.compress_ratios.size() >= c.num_hidden_layers + c.num_draft_layers(),
             "compress_ratios",
             StrCat("has ", c.compress_ratios.size(), " entries, expected at least ",
                    c.num_hidden_layers + c.num_draft_layers(), " (layers and draft layers)"));
  for (size_t l = 0; l < c.compress_ratios.size(); ++l) {
    const uint32_t ratio = c.compress_ratios[l];
    in.Require(ratio == 0 || ratio == 4 || ratio == 128, "compress_ratios",
               StrCat("has ", ratio, " at layer ", l, ", expected 0, 4 or 128"));
    in.Require(l < c.num_hidden_layers || ratio == 0, "compress_ratios",
               StrCat("has ", ratio, " at draft layer ", l, ", expected 0"));
  }
  in.Require(c.qk_rope_head_dim % 2 == 0 && c.qk_rope_head_dim < c.head_dim &&
                 c.qk_rope_head_dim <= c.index_head_dim,
             "qk_rope_head_dim",
             StrCat("is ", c.qk_rope_head_dim, ", expected even, below head_dim ", c.head_dim,
                    " and at most index_head_dim ", c.index_head_dim));
  in.Require((c.head_dim - c.qk_rope_head_dim) % kKvScaleBlock == 0, "head_dim",
             StrCat("is ", c.head_dim, ", expected qk_rope_head_dim plus a multiple of 64"));
  in.Require(std::has_single_bit(c.index_head_dim) && c.index_head_dim % kKeyScaleBlock == 0,
             "index_head_dim",
             StrCat("is ", c.index_head_dim, ", expected a power of two from 32"));
  in.Require(c.num_attention_heads % c.o_groups == 0, "o_groups",
             StrCat("is ", c.o_groups, ", expected a divisor of num_attention_heads ",
                    c.num_attention_heads));
  in.Require(!c.quantized || c.o_lora_rank % 128 == 0 || 128 % c.o_lora_rank == 0, "o_lora_rank",
             StrCat("is ", c.o_lora_rank, ", expected a multiple or divisor of 128 with FP8"));
  in.Require(
      c.num_experts_per_tok <= c.n_routed_experts, "num_experts_per_tok",
      StrCat("is ", c.num_experts_per_tok, ", more than n_routed_experts ", c.n_routed_experts));
  in.Require(uint64_t{c.num_hidden_layers} * c.n_routed_experts <= kMaxLayerExperts,
             "n_routed_experts",
             StrCat("is ", c.n_routed_experts, " in each of ", c.num_hidden_layers,
                    " layers, expected at most ", kMaxLayerExperts, " in all"));
  const bool fp4 = c.expert_dtype == ExpertDtype::kFp4;
  in.Require(!fp4 || (c.hidden_size % 32 == 0 && c.moe_intermediate_size % 32 == 0),
             "moe_intermediate_size",
             StrCat("is ", c.moe_intermediate_size, " with hidden_size ", c.hidden_size,
                    ", FP4 experts need multiples of 32"));
}

}  // namespace

uint32_t Config::num_draft_layers() const {
  switch (draft_kind()) {
    case DraftKind::kNone:
      return 0;
    case DraftKind::kMtp:
      return num_nextn_predict_layers;
    case DraftKind::kDspark:
      return 3;  // stages; num_nextn_predict_layers stays 1 in these configs [model.md 1.1]
  }
  return 0;
}

kvcache::KvSpec Config::kv_spec(KvFormat format, bool with_mtp) const {
  kvcache::KvSpec spec{.format = format,
                       .head_dim = head_dim,
                       .rope_dim = qk_rope_head_dim,
                       .index_head_dim = index_head_dim,
                       .sliding_window = sliding_window};
  spec.compress_ratios.assign(compress_ratios.begin(), compress_ratios.begin() + num_hidden_layers);
  if (with_mtp) spec.compress_ratios.push_back(0);
  return spec;
}

Result<Config> ParseConfig(std::string_view json_text, std::string_view name) {
  CACHALOT_TRY(const Json json, ParseJson(json_text, name));
  CACHALOT_RETURN_IF_ERROR(CheckModelType(json, name));
  Config config;
  FieldReader in(json, name);
  ReadSizes(in, config);
  ReadScalars(in, config);
  ReadYarn(in, name, config);
  ReadQuantization(in, config);
  ReadDspark(in, config);
  CACHALOT_RETURN_IF_ERROR(in.status());  // relations of half-read fields would mislead
  CheckRelations(in, config);
  CACHALOT_RETURN_IF_ERROR(in.status());
  return config;
}

Result<Config> LoadConfig(const std::string& dir) {
  const std::string path = StrCat(dir, "/config.json");
  CACHALOT_TRY(const std::string text, io::ReadFile(path, kMaxConfigBytes));
  return ParseConfig(text, path);
}

std::string ConfigToJson(const Config& c) {
  Json json = {{"architectures", {"DeepseekV4ForCausalLM"}},
               {"model_type", c.model_type},
               {"vocab_size", c.vocab_size},
               {"hidden_size", c.hidden_size},
               {"num_hidden_layers", c.num_hidden_layers},
               {"num_attention_heads", c.num_attention_heads},
               {"num_key_value_heads", 1},
               {"head_dim", c.head_dim},
               {"qk_rope_head_dim", c.qk_rope_head_dim},
               {"q_lora_rank", c.q_lora_rank},
               {"o_groups", c.o_groups},
               {"o_lora_rank", c.o_lora_rank},
               {"sliding_window", c.sliding_window},
               {"compress_ratios", c.compress_ratios},
               {"index_n_heads", c.index_n_heads},
               {"index_head_dim", c.index_head_dim},
               {"index_topk", c.index_topk},
               {"rope_theta", c.rope_theta},
               {"compress_rope_theta", c.compress_rope_theta},
               {"max_position_embeddings", c.max_position_embeddings},
               {"n_routed_experts", c.n_routed_experts},
               {"n_shared_experts", c.n_shared_experts},
               {"num_experts_per_tok", c.num_experts_per_tok},
               {"moe_intermediate_size", c.moe_intermediate_size},
               {"num_hash_layers", c.num_hash_layers},
               {"scoring_func", "sqrtsoftplus"},
               {"topk_method", "noaux_tc"},
               {"norm_topk_prob", true},
               {"routed_scaling_factor", c.routed_scaling_factor},
               {"swiglu_limit", c.swiglu_limit},
               {"hidden_act", "silu"},
               {"hc_mult", c.hc_mult},
               {"hc_sinkhorn_iters", c.hc_sinkhorn_iters},
               {"hc_eps", c.hc_eps},
               {"rms_norm_eps", c.rms_norm_eps},
               {"num_nextn_predict_layers", c.num_nextn_predict_layers},
               {"tie_word_embeddings", false},
               {"attention_bias", false},
               {"bos_token_id", c.bos_token_id},
               {"eos_token_id", c.eos_token_id},
               {"torch_dtype", "bfloat16"}};
  if (c.has_yarn) {
    json["rope_scaling"] = {
        {"type", "yarn"},
        {"factor", c.yarn_factor},
        {"beta_fast", c.yarn_beta_fast},
        {"beta_slow", c.yarn_beta_slow},
        {"original_max_position_embeddings", c.yarn_original_max_position_embeddings}};
  }
  if (c.expert_dtype != ExpertDtype::kUnquantized) {
    json["expert_dtype"] = c.expert_dtype == ExpertDtype::kFp8 ? "fp8" : "fp4";
  }
  if (c.quantized) {
    json["quantization_config"] = {{"quant_method", "fp8"},
                                   {"fmt", "e4m3"},
                                   {"scale_fmt", "ue8m0"},
                                   {"activation_scheme", "dynamic"},
                                   {"weight_block_size", {128, 128}}};
  }
  if (c.dspark_block_size > 0) {
    json["dspark_block_size"] = c.dspark_block_size;
    json["dspark_noise_token_id"] = c.dspark_noise_token_id;
    json["dspark_markov_rank"] = c.dspark_markov_rank;
    json["dspark_target_layer_ids"] = c.dspark_target_layer_ids;
  }
  return json.dump(2) + "\n";
}

}  // namespace cachalot::model
