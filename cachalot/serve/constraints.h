// SPDX-License-Identifier: Apache-2.0
// From what a request demands of its answer's form to a constraint of the engine. [api.md 4.8, 4.9]
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "cachalot/api/request.h"
#include "cachalot/engine/sampler.h"
#include "cachalot/grammar/matcher.h"
#include "cachalot/serve/prompt.h"
#include "cachalot/serve/served_model.h"

namespace cachalot::serve {

// Compiles grammars and keeps them, with the masks they have computed, for requests that ask for
// the same again. Thread-safe. `model` outlives it.
class Constraints {
 public:
  explicit Constraints(const ServedModel& model);

  // What the answer to `request` is held to; null: nothing. 400 if a schema cannot be enforced.
  //   response_format     the whole answer, after </think> where there is thinking
  //   required, named     the tool block that the prompt has opened
  //   all tools strict    a tool block, from its opener on
  api::ApiResult<std::shared_ptr<grammar::Automaton>> Compile(const api::GenerateRequest& request);

  // One walk through it, for one answer.
  std::unique_ptr<engine::TokenConstraint> Walk(std::shared_ptr<grammar::Automaton> automaton,
                                                const api::GenerateRequest& request,
                                                const Prompt& prompt) const;

 private:
  using Known = std::pair<std::string, std::shared_ptr<grammar::Automaton>>;
  std::shared_ptr<grammar::Automaton> Find(const std::string& key);
  std::shared_ptr<grammar::Automaton> Keep(std::string key,
                                           std::shared_ptr<const grammar::Grammar> grammar,
                                           const std::shared_ptr<const grammar::Vocabulary>& words);
  api::ApiResult<std::shared_ptr<grammar::Automaton>> ForTools(const api::GenerateRequest& request);

  const ServedModel& model_;
  std::shared_ptr<const grammar::Vocabulary> text_;   // ordinary tokens
  std::shared_ptr<const grammar::Vocabulary> calls_;  // and the token of tool markup
  std::mutex mutex_;
  std::list<Known> known_;  // most recently used first
};

}  // namespace cachalot::serve
