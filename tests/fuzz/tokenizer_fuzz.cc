// SPDX-License-Identifier: Apache-2.0
// tokenizer.json from outside: refused with an error, or a tokenizer whose decode inverts encode.
//
// Input: the JSON, then optionally a zero byte and the text to encode. A small valid vocabulary is
// spliced in for `"vocab":"BYTES"`, because no mutation finds 256 byte symbols by chance.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "cachalot/base/json.h"
#include "cachalot/tokenizer/byte_alphabet.h"
#include "cachalot/tokenizer/stream_decoder.h"
#include "cachalot/tokenizer/tokenizer.h"

namespace {

constexpr std::string_view kPlaceholder = "\"vocab\":\"BYTES\"";

// The 256 bytes and the products "ab", "abc" and two spaces.
std::string ByteVocab() {
  cachalot::Json vocab = cachalot::Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[cachalot::tokenizer::ByteSymbol(static_cast<uint8_t>(byte))] = byte;
  }
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  vocab["\u0120\u0120"] = 258;
  return "\"vocab\":" + vocab.dump();
}

void Require(bool condition) {
  if (!condition) std::abort();
}

std::string WithoutSpaces(std::string_view text) {
  std::string out(text);
  std::erase(out, ' ');
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string vocab = ByteVocab();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  std::string json(input.substr(0, zero));
  const std::string_view text =
      zero == std::string_view::npos ? std::string_view("ab  abc 12\xff") : input.substr(zero + 1);
  if (const size_t at = json.find(kPlaceholder); at != std::string::npos) {
    json.replace(at, kPlaceholder.size(), vocab);
  }
  const auto tokenizer = cachalot::tokenizer::Tokenizer::FromJson(json, "fuzz.json");
  if (!tokenizer.ok()) {
    Require(tokenizer.error().message.starts_with("fuzz.json"));
    return 0;
  }
  for (const bool parse_special : {false, true}) {
    const auto ids = (*tokenizer)->Encode(text, parse_special);
    cachalot::tokenizer::StreamDecoder decoder(**tokenizer);
    for (const uint32_t id : ids) {
      Require(id < (*tokenizer)->vocab_size());
      decoder.Push(id);
    }
    decoder.Finish();
    const std::string decoded = (*tokenizer)->Decode(ids);
    // A file may ask for prefix spaces; nothing else may come, go or move.
    Require(WithoutSpaces(decoded) == WithoutSpaces(text));
    if (decoded.size() == text.size()) Require(decoded == text);
    Require(decoded.size() >= text.size());
  }
  return 0;
}
