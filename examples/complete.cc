// SPDX-License-Identifier: Apache-2.0
// The smallest program on the library: loads a checkpoint directory and continues token ids.
//
//   example_complete models/mini 12 345 678
//
// Ids in, ids out: the engine knows nothing of text.
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <vector>

#include "cachalot/engine/engine.h"
#include "cachalot/model/weights.h"

namespace {

using cachalot::Error;
using cachalot::ErrorCode;
using cachalot::Status;

constexpr uint32_t kNewTokens = 16;

Status Complete(const char* dir, std::vector<uint32_t> prompt) {
  CACHALOT_TRY(const auto weights, cachalot::model::LoadWeights(dir));
  CACHALOT_TRY(const auto engine, cachalot::engine::Engine::Create(weights, {}));

  cachalot::engine::Request request;
  request.prompt = std::move(prompt);
  request.max_new_tokens = kNewTokens;
  request.sampling.temperature = 0.0f;  // greedy: the same ids every time
  CACHALOT_TRY([[maybe_unused]] const auto id, engine->Submit(std::move(request)));

  while (engine->HasWork()) {
    CACHALOT_TRY(const auto events, engine->Step());
    for (const auto& event : events) {
      if (event.token.has_value()) std::printf("%u ", *event.token);
    }
  }
  std::printf("\n");
  return {};
}

cachalot::Result<std::vector<uint32_t>> ParseIds(int argc, char** argv) {
  std::vector<uint32_t> ids;
  for (int i = 2; i < argc; ++i) {
    const std::string_view word = argv[i];
    uint32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size()) {
      return Error{ErrorCode::kInvalidArgument, std::string(word) + ": not a token id"};
    }
    ids.push_back(id);
  }
  return ids;
}

Status Run(int argc, char** argv) {
  if (argc < 3) return Error{ErrorCode::kInvalidArgument, "usage: example_complete DIR ID..."};
  CACHALOT_TRY(std::vector<uint32_t> ids, ParseIds(argc, argv));
  return Complete(argv[1], std::move(ids));
}

}  // namespace

int main(int argc, char** argv) {
  const Status status = Run(argc, argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.error().message.c_str());
  return cachalot::ExitCode(status.error().code);
}
