// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/recipe.h"

#include <algorithm>

#include "cachalot/base/json.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/train/toml_table_internal.h"

namespace cachalot::train {
namespace {

constexpr uint64_t kMaxRecipeBytes = 1 << 20;
constexpr uint64_t kMaxSteps = uint64_t{1} << 40;
constexpr uint64_t kMaxTokens = uint64_t{1} << 40;
constexpr uint32_t kMaxSequence = 1u << 20;
constexpr size_t kMaxStages = 64;

// Fields of config.json that say what a model is; those with a value here may be left out.
Json ModelDefaults() {
  return {{"vocab_size", nullptr},
          {"hidden_size", nullptr},
          {"num_hidden_layers", nullptr},
          {"num_attention_heads", nullptr},
          {"head_dim", nullptr},
          {"q_lora_rank", nullptr},
          {"o_groups", nullptr},
          {"o_lora_rank", nullptr},
          {"sliding_window", nullptr},
          {"compress_ratios", nullptr},
          {"index_n_heads", nullptr},
          {"index_topk", nullptr},
          {"n_routed_experts", nullptr},
          {"num_experts_per_tok", nullptr},
          {"moe_intermediate_size", nullptr},
          {"num_hash_layers", nullptr},
          {"num_nextn_predict_layers", nullptr},
          {"qk_rope_head_dim", 64},
          {"index_head_dim", 128},
          {"rope_theta", 10000},
          {"compress_rope_theta", 160000},
          {"max_position_embeddings", 1048576},
          {"routed_scaling_factor", 1.5},
          {"swiglu_limit", 10.0},
          {"hc_mult", 4},
          {"hc_sinkhorn_iters", 20},
          {"hc_eps", 1e-6},
          {"rms_norm_eps", 1e-6},
          {"bos_token_id", 0},
          {"eos_token_id", 1}};
}

void ReadModelField(TomlTable& in, const std::string& key, const toml::node& node, Json& value) {
  if (const auto integer = node.as_integer()) {
    // ParseConfig takes unsigned numbers; a negative one stays signed and is refused there.
    if (integer->get() >= 0) {
      value = static_cast<uint64_t>(integer->get());
    } else {
      value = integer->get();
    }
  } else if (const auto number = node.as_floating_point()) {
    value = number->get();
  } else if (const auto list = node.as_array();
             list != nullptr && list->is_homogeneous<int64_t>()) {
    value = Json::array();
    for (const toml::node& item : *list) {
      const int64_t ratio = item.as_integer()->get();
      value.push_back(ratio < 0 ? Json(ratio) : Json(static_cast<uint64_t>(ratio)));
    }
  } else {
    in.Refuse(key.c_str(), node, "a number or a list of whole numbers");
  }
}

// [model] in the spelling of config.json, so that ParseConfig checks sizes and relations.
void ReadModel(const toml::table* table, Recipe& recipe, TomlComplaint& complaint) {
  TomlTable in(table, "[model]", complaint);
  Json json = {{"model_type", "deepseek_v4"}};
  const Json defaults = ModelDefaults();
  for (const auto& [key, value] : defaults.items()) {
    const toml::node* node = in.Find(key.c_str(), value.is_null());
    json[key] = value;
    if (node != nullptr) ReadModelField(in, key, *node, json[key]);
  }
  if (const toml::table* yarn = in.Table("rope_scaling")) {
    TomlTable sub(yarn, "[model.rope_scaling]", complaint);
    double factor = 16, beta_fast = 32, beta_slow = 1;
    uint64_t original = 0;
    sub.Number("factor", factor, 1, 1e4);
    sub.Number("beta_fast", beta_fast, 1e-3, 1e4);
    sub.Number("beta_slow", beta_slow, 1e-3, 1e4);
    sub.Whole("original_max_position_embeddings", original, 1, 1u << 30, true);
    sub.Finish();
    json["rope_scaling"] = {{"type", "yarn"},
                            {"factor", factor},
                            {"beta_fast", beta_fast},
                            {"beta_slow", beta_slow},
                            {"original_max_position_embeddings", original}};
  }
  in.Finish();
  if (complaint.error) return;
  auto config = model::ParseConfig(json.dump(), StrCat(complaint.file, ": [model]"));
  if (config.ok()) {
    recipe.model = std::move(config).value();
  } else {
    complaint.error = Error{ErrorCode::kInvalidArgument, config.error().message};
  }
}

void ReadStages(TomlTable& in, Schedule& schedule, TomlComplaint& complaint) {
  const toml::array* stages = in.Tables("stage");
  if (stages == nullptr) {
    if (!complaint.error) in.Find("stage", true);
    return;
  }
  for (const toml::node& node : *stages) {
    TomlTable table(node.as_table(), "[[schedule.stage]]", complaint);
    Stage stage;
    table.Whole("from_step", stage.from_step, 0, kMaxSteps);
    table.Whole("sequence_length", stage.sequence_length, 2, kMaxSequence, true);
    table.Choice("attention", stage.attention, {"dense", "indexer-warmup", "sparse"});
    table.Text("train", stage.train);
    table.Whole("batch_tokens", stage.batch_tokens, 2, kMaxTokens);
    table.Finish();
    const bool first = schedule.stages.empty();
    if (first ? stage.from_step != 0 : stage.from_step <= schedule.stages.back().from_step) {
      table.Complain(node.source(),
                     StrCat("[[schedule.stage]].from_step is ", stage.from_step, ", expected ",
                            first ? "0 in the first stage"
                                  : StrCat("more than ", schedule.stages.back().from_step)));
    }
    if (schedule.stages.size() >= kMaxStages) {
      table.Complain(node.source(), StrCat("more than ", kMaxStages, " [[schedule.stage]]"));
    }
    if (complaint.error) return;
    schedule.stages.push_back(stage);
  }
}

void ReadSchedule(const toml::table* table, Recipe& recipe, TomlComplaint& complaint) {
  TomlTable in(table, "[schedule]", complaint);
  Schedule& s = recipe.schedule;
  in.Whole("steps", s.steps, 1, kMaxSteps, true);
  in.Whole("warmup_steps", s.warmup_steps, 0, s.steps);
  in.Whole("decay_steps", s.decay_steps, 0, s.steps - std::min(s.steps, s.warmup_steps));
  in.Number("learning_rate", s.learning_rate, 0, 10, true);
  in.Number("final_learning_rate", s.final_learning_rate, 0, 10, true);
  in.Number("indexer_learning_rate", s.indexer_learning_rate, 0, 10);
  in.Whole("batch_tokens", s.batch_tokens, 2, kMaxTokens, true);
  s.start_batch_tokens = s.batch_tokens;
  s.micro_batch_tokens = s.batch_tokens;
  in.Whole("start_batch_tokens", s.start_batch_tokens, 2, s.batch_tokens);
  in.Whole("batch_ramp_steps", s.batch_ramp_steps, 0, 1u << 20);
  in.Whole("micro_batch_tokens", s.micro_batch_tokens, 2, s.batch_tokens);
  in.Number("mtp_weight", s.mtp_weight, 0, 10);
  in.Number("decay_mtp_weight", s.decay_mtp_weight, 0, 10);
  ReadStages(in, s, complaint);
  in.Finish();
}

void ReadOptimizer(const toml::table* table, Recipe& recipe, TomlComplaint& complaint) {
  TomlTable in(table, "[optimizer]", complaint);
  OptimizerOptions& o = recipe.optimizer;
  in.Flag("muon", o.muon);
  in.Number("momentum", o.momentum, 0, 1);
  in.Number("update_rms", o.update_rms, 0, 10);
  in.Number("weight_decay", o.weight_decay, 0, 10);
  in.Number("beta1", o.beta1, 0, 0.999999);
  in.Number("beta2", o.beta2, 0, 0.999999);
  in.Number("epsilon", o.epsilon, 1e-30, 1);
  in.Number("clip_norm", recipe.clip_norm, 0, 1e6);
  in.Finish();
}

void ReadRest(TomlTable& top, Recipe& recipe, TomlComplaint& complaint) {
  TomlTable data(top.Table("data"), "[data]", complaint);
  data.Text("train", recipe.data.train, true);
  data.Text("validation", recipe.data.validation);
  data.Text("tokenizer", recipe.data.tokenizer);
  data.Flag("chat", recipe.data.chat);
  data.Finish();
  TomlTable loss(top.Table("loss"), "[loss]", complaint);
  loss.Number("balance_weight", recipe.loss.balance_weight, 0, 10);
  loss.Number("bias_speed", recipe.loss.bias_speed, 0, 1);
  loss.Finish();
  TomlTable precision(top.Table("precision"), "[precision]", complaint);
  precision.Choice("products", recipe.precision.products, {"float32", "bfloat16"});
  precision.Flag("qat", recipe.precision.qat);
  precision.Whole("qat_from_step", recipe.precision.qat_from_step, 0, kMaxSteps);
  precision.Finish();
  TomlTable memory(top.Table("memory"), "[memory]", complaint);
  memory.Choices("recompute", RecomputableNames(),
                 [&](size_t i) { recipe.memory.recompute.Add(static_cast<Recomputable>(i)); });
  memory.Finish();
  TomlTable residual(top.Table("residual"), "[residual]", complaint);
  residual.Choice("map", recipe.residual, {"mhc", "unconstrained", "plain"});
  residual.Finish();
  if (recipe.residual != ResidualMap::kSinkhorn && recipe.precision.qat) {
    precision.Complain(top.Table("residual")->source(),
                       "[residual].map is not \"mhc\": such a model has no released format, so "
                       "[precision].qat must be false");
  }
  TomlTable stability(top.Table("stability"), "[stability]", complaint);
  stability.Number("spike_deviations", recipe.stability.spike_deviations, 0, 1e6);
  stability.Whole("anticipate_steps", recipe.stability.anticipate_steps, 0, kMaxSteps);
  stability.Whole("anticipate_lag", recipe.stability.anticipate_lag, 1, 1024);
  stability.Finish();
  TomlTable checkpoint(top.Table("checkpoint"), "[checkpoint]", complaint);
  checkpoint.Whole("every_steps", recipe.checkpoint.every_steps, 1, kMaxSteps);
  checkpoint.Whole("keep_last", recipe.checkpoint.keep_last, 1, 1000);
  checkpoint.Finish();
  TomlTable evaluation(top.Table("evaluation"), "[evaluation]", complaint);
  evaluation.Whole("every_steps", recipe.evaluation.every_steps, 1, kMaxSteps);
  evaluation.Whole("tokens", recipe.evaluation.tokens, 1, kMaxTokens);
  evaluation.Finish();
}

// toml++ 3.3 runs into undefined behavior on some characters between tokens (U+FEFD, U+3001), so
// none but ASCII reaches it; strings may spell others as \uXXXX.
std::optional<Error> CheckIsAscii(std::string_view text, std::string_view file) {
  const auto bad = std::ranges::find_if(text, [](char c) { return (c & 0x80) != 0; });
  if (bad == text.end()) return std::nullopt;
  return Error{ErrorCode::kInvalidArgument,
               StrCat(file, ":", 1 + std::count(text.begin(), bad, '\n'),
                      ": a recipe is plain ASCII; in a string write \\uXXXX instead")};
}

}  // namespace

const std::string& TrainDataAt(const Recipe& recipe, uint64_t step) {
  const std::string* found = &recipe.data.train;
  for (const Stage& stage : recipe.schedule.stages) {
    if (stage.from_step > step) break;
    if (!stage.train.empty()) found = &stage.train;
  }
  return *found;
}

Result<Recipe> ParseRecipe(std::string_view text, std::string_view file) {
  if (auto error = CheckIsAscii(text, file)) return *std::move(error);
  const toml::parse_result parsed = toml::parse(text);
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(file, ":", error.source().begin.line, ": ", error.description())};
  }
  TomlComplaint complaint{std::string(file), {}};
  TomlTable top(&parsed.table(), "the recipe", complaint);
  Recipe recipe;
  top.Text("name", recipe.name, true);
  top.Whole("seed", recipe.seed, 0, uint64_t{1} << 62);
  top.Text("start_from", recipe.start_from);
  ReadModel(top.Table("model"), recipe, complaint);
  ReadSchedule(top.Table("schedule"), recipe, complaint);
  ReadOptimizer(top.Table("optimizer"), recipe, complaint);
  ReadRest(top, recipe, complaint);
  top.Finish();
  if (complaint.error) return *complaint.error;
  return recipe;
}

Result<Recipe> LoadRecipe(const std::string& path) {
  CACHALOT_TRY(const std::string text, io::ReadFile(path, kMaxRecipeBytes));
  return ParseRecipe(text, path);
}

}  // namespace cachalot::train
