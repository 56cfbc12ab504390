// SPDX-License-Identifier: Apache-2.0
// Lines of training data from outside: refused by name, or a sample whose parts fit together.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "cachalot/tokenizer/v4_format.h"
#include "cachalot/train/documents.h"

namespace {
void Require(bool condition) {
  if (!condition) std::abort();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace train = cachalot::train;
  static const auto tokenizer =
      *cachalot::tokenizer::Tokenizer::FromJson(cachalot::tokenizer::V4TokenizerJson({}), "bytes");
  static const train::SampleMaker maker =
      *train::SampleMaker::Create(tokenizer, {.fill_rate = 0.5});
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  const auto document = train::DocumentFromJson(line, "fuzz:1");
  if (!document.ok()) {
    Require(document.error().message.starts_with("fuzz:1"));
    return 0;
  }
  for (uint64_t index = 0; index < 4; ++index) {
    const auto sample = maker.Make(*document, index);
    Require(sample.ok());
    Require(sample->ids.size() == sample->is_target.size());
    for (const uint32_t id : sample->ids) Require(id < tokenizer->vocab_size());
  }
  return 0;
}
