// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/tokenizer.h"

#include "cachalot/base/strings.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/tokenizer/tokenizer_parts.h"

namespace cachalot::tokenizer {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;  // the largest known has 33 MB

// One Encode() call.
class Encoder {
 public:
  explicit Encoder(const TokenizerParts& parts) : parts_(parts) {}

  void Plain(std::string_view text) {
    parts_.pre_tokenizer->Run(text, pre_);
    for (const std::string_view piece : pre_.pieces) Piece(piece);
  }

  void WithAdded(std::string_view text) {
    Gaps(parts_.plain_matcher, text, [this](std::string_view gap) {
      Gaps(parts_.normalized_matcher, gap, [this](std::string_view inner) { Plain(inner); });
    });
  }

  std::vector<uint32_t> Take() { return std::move(ids_); }

 private:
  // Appends the ids of the matches and calls encode_gap(text) for what lies between, in order.
  template <typename F>
  void Gaps(const AddedTokenMatcher& matcher, std::string_view text, const F& encode_gap) {
    size_t at = 0;
    while (const auto match = matcher.Find(text, at)) {
      if (match->begin > at) encode_gap(text.substr(at, match->begin - at));
      ids_.push_back(match->id);
      at = match->begin + match->size;
    }
    if (at < text.size()) encode_gap(text.substr(at));
  }

  void Piece(std::string_view piece) {
    if (parts_.ignore_merges) {
      const auto whole = parts_.whole_pieces.find(std::string(piece));
      if (whole != parts_.whole_pieces.end()) {
        ids_.push_back(whole->second);
        return;
      }
    }
    EncodePiece(piece, parts_.byte_ids, parts_.merges, bpe_, ids_);
  }

  const TokenizerParts& parts_;
  PreTokenizerScratch pre_;
  BpeScratch bpe_;
  std::vector<uint32_t> ids_;
};

}  // namespace

Tokenizer::Tokenizer(TokenizerParts parts)
    : parts_(std::make_unique<const TokenizerParts>(std::move(parts))) {}
Tokenizer::~Tokenizer() = default;

Result<std::shared_ptr<const Tokenizer>> Tokenizer::Load(const std::string& dir) {
  const std::string path = StrCat(dir, "/tokenizer.json");
  CACHALOT_TRY(const std::string text, io::ReadFile(path, kMaxFileBytes));
  return FromJson(text, path);
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::FromJson(std::string_view text,
                                                             std::string_view name) {
  CACHALOT_TRY(TokenizerParts parts, ParseTokenizerJson(text, name));
  return std::make_shared<const Tokenizer>(std::move(parts));
}

std::vector<uint32_t> Tokenizer::Encode(std::string_view text, bool parse_special) const {
  Encoder encoder(*parts_);
  if (parse_special) {
    encoder.WithAdded(text);
  } else {
    encoder.Plain(text);
  }
  return encoder.Take();
}

std::string_view Tokenizer::TokenBytes(uint32_t id) const {
  return id < vocab_size() ? parts_->token_bytes[id] : std::string_view();
}

std::string Tokenizer::Decode(std::span<const uint32_t> ids) const {
  std::string text;
  for (const uint32_t id : ids) text += TokenBytes(id);
  return text;
}

uint32_t Tokenizer::vocab_size() const { return parts_->token_bytes.size(); }

std::optional<uint32_t> Tokenizer::FindSpecial(std::string_view content) const {
  const auto found = parts_->added.find(content);
  if (found == parts_->added.end()) return std::nullopt;
  return found->second.id;
}

bool Tokenizer::IsAdded(uint32_t id) const { return parts_->added_special.contains(id); }

bool Tokenizer::IsSpecial(uint32_t id) const {
  const auto found = parts_->added_special.find(id);
  return found != parts_->added_special.end() && found->second;
}

}  // namespace cachalot::tokenizer
