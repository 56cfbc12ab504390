// SPDX-License-Identifier: Apache-2.0
// cachalot inspect: what a model is and what it costs, from its configuration, and whether a
// checkpoint is all there.
#include <cstdio>
#include <filesystem>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/cli/progress.h"
#include "cachalot/model/inventory.h"
#include "cachalot/model/weights.h"

namespace cachalot::cli {
namespace {

struct InspectFlags {
  std::string model;
  bool json = false;
};

struct Inspection {
  std::string name;
  model::Config config;
  model::Totals totals;  // implied by the config, or counted if there are weights
  std::string weights;   // what was found of them
};

bool HasWeights(const std::string& dir) {
  std::error_code ec;
  return std::filesystem::exists(dir + "/model.safetensors.index.json", ec) ||
         std::filesystem::exists(dir + "/model.safetensors", ec);
}

// Tensors, bytes and dtypes as stored, which may differ from what the config implies.
void CountStored(const checkpoint::Checkpoint& ckpt, model::Totals& totals) {
  totals.tensors = ckpt.tensors().size();
  totals.bytes = ckpt.total_bytes();
  totals.tensors_by_dtype.clear();
  for (const auto& t : ckpt.tensors()) ++totals.tensors_by_dtype[std::string(DTypeName(t.dtype))];
}

Result<Inspection> Inspect(const std::string& name) {
  Inspection result{.name = name};
  if (auto published = model::PublishedConfig(name); published.ok()) {
    result.config = *published;
    result.totals = model::ComputeTotals(result.config);
    result.weights = "none looked at: computed from the configuration";
    return result;
  }
  CACHALOT_TRY(const std::string dir, ResolveModel(name));
  result.name = dir;
  CACHALOT_TRY(result.config, model::LoadConfig(dir));
  result.totals = model::ComputeTotals(result.config);
  if (!HasWeights(dir)) {
    result.weights = "none in the folder: computed from the configuration";
    return result;
  }
  CACHALOT_TRY(const auto weights, model::LoadWeights(dir));
  CountStored(*weights->storage, result.totals);
  result.weights = StrCat("complete: every tensor checked by name, type and shape",
                          weights->mtp ? ", with MTP" : ", without MTP");
  return result;
}

std::string LayerKinds(const model::Config& c) {
  size_t swa = 0, csa = 0, hca = 0;
  for (uint32_t l = 0; l < c.num_hidden_layers; ++l) {
    ++(c.compress_ratios[l] == 0 ? swa : c.compress_ratios[l] == 4 ? csa : hca);
  }
  return StrCat(swa, " window only, ", csa, " CSA, ", hca, " HCA");
}

const char* DraftName(const model::Config& c) {
  switch (c.draft_kind()) {
    case model::DraftKind::kNone:
      return "none";
    case model::DraftKind::kMtp:
      return "MTP block";
    case model::DraftKind::kDspark:
      return "DSpark stages (recognized, not run)";
  }
  return "";
}

void PrintTable(const Inspection& in) {
  const model::Config& c = in.config;
  const kvcache::KvSpec kv = c.kv_spec(KvFormat::kNative, /*with_mtp=*/false);
  const double per_token = static_cast<double>(kv.block_bytes()) / kvcache::kBlockTokens;
  const auto row = [](const char* label, const std::string& text) {
    fmt::print("{:<16}{}\n", label, text);
  };
  row("model", StrCat(in.name, " (", c.model_type, ")"));
  row("weights", in.weights);
  row("layers",
      StrCat(c.num_hidden_layers, ": ", LayerKinds(c), "; ", c.num_hash_layers, " hash-routed"));
  row("draft", DraftName(c));
  row("hidden", StrCat(c.hidden_size, " in ", c.hc_mult, " streams, vocabulary ", c.vocab_size));
  row("attention", StrCat(c.num_attention_heads, " heads of ", c.head_dim, ", window ",
                          c.sliding_window, ", top ", c.index_topk, " of the compressed entries"));
  row("experts", StrCat(c.num_experts_per_tok, " of ", c.n_routed_experts, " + ",
                        c.n_shared_experts, " shared, width ", c.moe_intermediate_size));
  row("context", StrCat(c.max_position_embeddings, " tokens"));
  row("parameters", fmt::format("{:L} ({:.2f}e9), with draft {:L}", in.totals.parameters,
                                static_cast<double>(in.totals.parameters) * 1e-9,
                                in.totals.parameters_with_draft));
  row("activated", fmt::format("{:L} per token", in.totals.activated));
  row("tensors", StrCat(in.totals.tensors, ", ", FormatBytes(in.totals.bytes)));
  std::string dtypes;
  for (const auto& [name, count] : in.totals.tensors_by_dtype) {
    dtypes += StrCat(dtypes.empty() ? "" : ", ", name, " ", count);
  }
  row("dtypes", dtypes);
  row("KV cache",
      fmt::format("{:.2f} bytes per token, {} a block of {} tokens, {} a sequence", per_token,
                  kv.block_bytes(), kvcache::kBlockTokens, FormatBytes(kv.state_bytes())));
  for (const uint64_t tokens : {uint64_t{8192}, uint64_t{131072}, uint64_t{1048576}}) {
    if (tokens > c.max_position_embeddings) break;
    const auto bytes = static_cast<uint64_t>(per_token * static_cast<double>(tokens));
    row("", StrCat(FormatBytes(bytes + kv.state_bytes()), " at ", tokens, " tokens"));
  }
}

void PrintJson(const Inspection& in) {
  const kvcache::KvSpec kv = in.config.kv_spec(KvFormat::kNative, /*with_mtp=*/false);
  const Json json = {
      {"model_type", in.config.model_type},
      {"layers", in.config.num_hidden_layers},
      {"tensors", in.totals.tensors},
      {"bytes", in.totals.bytes},
      {"parameters", in.totals.parameters},
      {"parameters_with_mtp", in.totals.parameters_with_draft},
      {"activated", in.totals.activated},
      {"kv_bytes_per_token", static_cast<double>(kv.block_bytes()) / kvcache::kBlockTokens},
      {"kv_block_bytes", kv.block_bytes()},
      {"state_bytes", kv.state_bytes()},
      {"dtypes", in.totals.tensors_by_dtype}};
  fmt::print("{}\n", json.dump());
}

}  // namespace

void RegisterInspect(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<InspectFlags>();
  CLI::App* command =
      app.add_subcommand("inspect", "Show a model's configuration, parameters, memory and KV cost");
  command->add_option("MODEL,-m,--model", flags->model,
                      "flash, pro, flash-base, pro-base, flash-0731, pro-0813, a model name or a "
                      "directory (default: mini)");
  command->add_flag("--json", flags->json, "Print one JSON object");
  SetExamples(*command,
              "cachalot inspect flash\n"
              "cachalot inspect --json /models/DeepSeek-V4-Flash");
  command->callback([flags, &exit_code] {
    const auto result = Inspect(flags->model);
    if (!result.ok()) {
      exit_code = Report(result.error());
    } else if (flags->json) {
      PrintJson(*result);
    } else {
      PrintTable(*result);
    }
  });
}

}  // namespace cachalot::cli
