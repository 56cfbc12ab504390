// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/info.h"

#include <algorithm>

#include "cachalot/base/json.h"

namespace cachalot::serve {
namespace {

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json Model(const ServedModel& model) {
  return {{"id", model.name},
          {"object", "model"},
          {"created", model.loaded_at},
          {"owned_by", "cachalot"},
          {"name", model.name},
          {"root", model.name},
          {"max_model_len", model.max_context},
          {"context_length", model.max_context},
          {"context_window", model.max_context},
          {"max_output_tokens", model.max_context},
          {"input_modalities", Json::array({"text"})},
          {"output_modalities", Json::array({"text"})},
          {"meta", {{"n_vocab", model.vocab_size}, {"n_ctx_train", model.max_context}}}};
}

// What a request that says nothing gets.
Json DefaultSettings(const ServedModel& model) {
  return {{"n_ctx", model.max_context},
          {"params",
           {{"temperature", 1.0},
            {"top_k", 0},
            {"top_p", 1.0},
            {"min_p", 0.0},
            {"repeat_penalty", 1.0},
            {"presence_penalty", 0.0},
            {"frequency_penalty", 0.0},
            {"n_predict", -1}}}};
}

}  // namespace

std::string ModelBody(const ServedModel& model) { return Dump(Model(model)); }

std::string ModelListBody(const ServedModel& model) {
  return Dump({{"object", "list"}, {"data", Json::array({Model(model)})}});
}

std::string PropsBody(const ServedModel& model, uint32_t places) {
  // The chat format is code (chat/encode.h), not a template; /apply-template shows what it gives.
  return Dump({{"default_generation_settings", DefaultSettings(model)},
               {"total_slots", places},
               {"model_alias", model.name},
               {"model_path", model.name},
               {"chat_template", ""},
               {"chat_template_caps",
                {{"supports_tools", true},
                 {"supports_parallel_tool_calls", true},
                 {"supports_system_role", true}}},
               {"modalities", {{"vision", false}, {"audio", false}}},
               {"build_info", "cachalot " + model.fingerprint},
               {"is_sleeping", false}});
}

std::string SlotsBody(const ServedModel& model, uint32_t places, const engine::EngineStats& stats) {
  Json slots = Json::array();
  for (uint32_t i = 0; i < places; ++i) {
    slots.push_back({{"id", i},
                     {"n_ctx", model.max_context},
                     {"speculative", model.drafts},
                     {"is_processing", i < stats.running}});
  }
  return Dump(slots);
}

std::string BalanceBody() {
  return Dump({{"is_available", true},
               {"balance_infos", Json::array({{{"currency", "USD"},
                                               {"total_balance", "0.00"},
                                               {"granted_balance", "0.00"},
                                               {"topped_up_balance", "0.00"}}})}});
}

}  // namespace cachalot::serve
