// SPDX-License-Identifier: Apache-2.0
// Bodies that say what runs here, in the words of llama-server and vLLM. [api.md 3, 10, 11]
#pragma once

#include <cstdint>
#include <string>

#include "cachalot/engine/engine.h"
#include "cachalot/serve/served_model.h"

namespace cachalot::serve {

// An entry of /models.
std::string ModelBody(const ServedModel& model);
std::string ModelListBody(const ServedModel& model);
// /props and /slots: places of the batch. Nothing of any request but whether its place is taken.
std::string PropsBody(const ServedModel& model, uint32_t places);
std::string SlotsBody(const ServedModel& model, uint32_t places, const engine::EngineStats& stats);
// /user/balance: nothing is paid for here.
std::string BalanceBody();

}  // namespace cachalot::serve
