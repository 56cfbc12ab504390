// SPDX-License-Identifier: Apache-2.0
// tokenizer.json, field by field. Every message is "FILE: ITEM: found, expected".
#include "cachalot/tokenizer/tokenizer_parts.h"

#include "cachalot/base/strings.h"
#include "cachalot/tokenizer/byte_alphabet.h"
#include "cachalot/tokenizer/json_fields.h"
#include "cachalot/tokenizer/pre_tokenizer_json.h"

namespace cachalot::tokenizer {
namespace {

// Ids must be dense, so this also bounds the number of entries.
constexpr size_t kMaxEntries = size_t{1} << 24;

std::string Quoted(std::string_view text) { return Shown(SortedJson(text)); }

class Parser {
 public:
  Parser(const SortedJson& root, std::string_view name) : root_(root), name_(name) {}

  Result<TokenizerParts> Run() {
    if (!root_.is_object()) return Corrupt("the file", "is not an object");
    CACHALOT_RETURN_IF_ERROR(CheckNormalizer());
    CACHALOT_RETURN_IF_ERROR(CheckModel());
    CACHALOT_RETURN_IF_ERROR(ReadVocab());
    CACHALOT_RETURN_IF_ERROR(ReadAddedTokens());
    CACHALOT_RETURN_IF_ERROR(FillTokenBytes());
    CACHALOT_RETURN_IF_ERROR(FindByteIds());
    CACHALOT_RETURN_IF_ERROR(ReadMerges());
    CACHALOT_TRY(parts_.pre_tokenizer, ParsePreTokenizer(Field(root_, "pre_tokenizer"), name_));
    return std::move(parts_);
  }

 private:
  Error Corrupt(std::string_view item, std::string_view what) const {
    return {ErrorCode::kDataCorruption, StrCat(name_, ": ", item, " ", what)};
  }
  Error Unsupported(std::string_view item, const SortedJson& found,
                    std::string_view expected) const {
    return {ErrorCode::kUnsupported,
            StrCat(name_, ": ", item, " is ", Shown(found), ", only ", expected, " is read")};
  }

  Status CheckNormalizer() const {
    const SortedJson& normalizer = Field(root_, "normalizer");
    if (normalizer.is_null()) return {};
    const SortedJson& type = Field(normalizer, "type");
    if (type != "Sequence") return Unsupported("normalizer", type, "null or an empty Sequence");
    const SortedJson& steps = Field(normalizer, "normalizers");
    if (steps.is_array() && steps.empty()) return {};
    return Unsupported("normalizer.normalizers", steps, "an empty list");
  }

  Status CheckModel() {
    const SortedJson& model = Field(root_, "model");
    if (Field(model, "type") != "BPE")
      return Unsupported("model.type", Field(model, "type"), "BPE");
    const SortedJson& dropout = Field(model, "dropout");
    if (!dropout.is_null() && dropout != 0.0) return Unsupported("model.dropout", dropout, "null");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const SortedJson& affix = Field(model, key);
      if (!affix.is_null() && affix != "") return Unsupported(StrCat("model.", key), affix, "null");
    }
    const SortedJson& decoder = Field(Field(root_, "decoder"), "type");
    if (!decoder.is_null() && decoder != "ByteLevel") {
      return Unsupported("decoder.type", decoder, "ByteLevel");
    }
    const SortedJson& ignore_merges = Field(model, "ignore_merges");
    if (!ignore_merges.is_null() && !ignore_merges.is_boolean()) {
      return Corrupt("model.ignore_merges", StrCat("is ", Shown(ignore_merges), ", not a boolean"));
    }
    parts_.ignore_merges = ignore_merges == true;
    return {};
  }

  // An id below the number of entries there can be: ids are dense, so anything larger leaves a
  // hole.
  Result<uint32_t> ReadId(const SortedJson& value, std::string_view item) const {
    if (!value.is_number_unsigned()) {
      return Corrupt(item, StrCat("has id ", Shown(value), ", not a number from 0"));
    }
    const auto id = value.get<uint64_t>();
    if (id >= contents_.size()) {
      return Corrupt(
          item, StrCat("has id ", id, ", but the file has only ", contents_.size(), " entries"));
    }
    return static_cast<uint32_t>(id);
  }

  Status ReadVocab() {
    const SortedJson& vocab = Field(Field(root_, "model"), "vocab");
    const SortedJson& added = Field(root_, "added_tokens");
    if (!vocab.is_object()) return Corrupt("model.vocab", "is missing or not an object");
    if (!added.is_null() && !added.is_array()) return Corrupt("added_tokens", "is not a list");
    const size_t entries = vocab.size() + added.size();
    if (entries > kMaxEntries) {
      return Corrupt("model.vocab", StrCat("has ", entries, " entries, at most ", kMaxEntries));
    }
    contents_.assign(entries, nullptr);
    for (const auto& item : vocab.items()) {
      const std::string label = StrCat("model.vocab entry ", Quoted(item.key()));
      CACHALOT_TRY(const uint32_t id, ReadId(item.value(), label));
      if (contents_[id] != nullptr) {
        return Corrupt(label,
                       StrCat("has id ", id, ", which ", Quoted(*contents_[id]), " has too"));
      }
      contents_[id] = &item.key();
      vocab_.emplace(item.key(), id);
    }
    return {};
  }

  Status ReadAddedTokens() {
    const SortedJson& added = Field(root_, "added_tokens");
    is_added_.assign(contents_.size(), false);
    for (size_t i = 0; i < added.size(); ++i) {
      CACHALOT_RETURN_IF_ERROR(ReadAddedToken(added[i], StrCat("added_tokens[", i, "]")));
    }
    return {};
  }

  Result<bool> ReadFlag(const SortedJson& token, const char* key, std::string_view label) const {
    const SortedJson& flag = Field(token, key);
    if (flag.is_null()) return false;
    if (!flag.is_boolean()) {
      return Corrupt(label, StrCat("has ", key, " ", Shown(flag), ", not a boolean"));
    }
    return flag.get<bool>();
  }

  Status ReadAddedToken(const SortedJson& token, const std::string& position) {
    const SortedJson& field = Field(token, "content");
    if (!field.is_string()) return Corrupt(position, "has no content");
    const auto& content = field.get_ref<const std::string&>();
    const std::string label = StrCat(position, " ", Quoted(content));
    if (content.empty() || content.size() > kMaxAddedTokenBytes) {
      return Corrupt(label, StrCat("has ", content.size(), " bytes of content, 1 to ",
                                   kMaxAddedTokenBytes, " are allowed"));
    }
    for (const char* key : {"single_word", "lstrip", "rstrip"}) {
      CACHALOT_TRY(const bool flag, ReadFlag(token, key, label));
      if (flag) return Unsupported(StrCat(label, ": ", key), true, "false");
    }
    CACHALOT_TRY(const bool special, ReadFlag(token, "special", label));
    CACHALOT_TRY(const bool normalized, ReadFlag(token, "normalized", label));
    CACHALOT_TRY(const uint32_t id, ReadId(Field(token, "id"), label));
    CACHALOT_RETURN_IF_ERROR(ClaimId(content, id, label));
    parts_.added.emplace(content, AddedToken{id, special});
    parts_.added_special.emplace(id, special);
    (normalized ? parts_.normalized_matcher : parts_.plain_matcher).Add(content, id);
    return {};
  }

  // An added token may repeat an entry of the vocabulary, but only with the same id. `content`
  // lives in root_.
  Status ClaimId(const std::string& content, uint32_t id, std::string_view label) {
    if (is_added_[id] || parts_.added.contains(content)) {
      return Corrupt(label, StrCat("with id ", id, " repeats the content or id of another one"));
    }
    if (contents_[id] != nullptr && *contents_[id] != content) {
      return Corrupt(
          label, StrCat("has id ", id, ", which ", Quoted(*contents_[id]), " has in model.vocab"));
    }
    if (const auto found = vocab_.find(content); found != vocab_.end() && found->second != id) {
      return Corrupt(label, StrCat("has id ", id, ", but ", found->second, " in model.vocab"));
    }
    const std::optional<std::string> bytes = BytesOfSymbols(content);
    if (contents_[id] != nullptr && bytes && *bytes != content) {
      return Corrupt(label, "is in model.vocab too, where the byte alphabet gives it other bytes");
    }
    contents_[id] = &content;
    is_added_[id] = true;
    return {};
  }

  // Entries outside the byte alphabet (added tokens, and nothing BPE can reach) stand for their own
  // UTF-8.
  Status FillTokenBytes() {
    size_t size = contents_.size();
    while (size > 0 && contents_[size - 1] == nullptr) --size;
    for (uint32_t id = 0; id < size; ++id) {
      if (contents_[id] == nullptr) return Corrupt(StrCat("id ", id), "has no entry");
      std::optional<std::string> bytes;
      if (!is_added_[id]) bytes = BytesOfSymbols(*contents_[id]);
      parts_.token_bytes.Append(bytes ? *bytes : *contents_[id]);
      if (parts_.ignore_merges && bytes) parts_.whole_pieces.emplace(std::move(*bytes), id);
    }
    return {};
  }

  Status FindByteIds() {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const std::string symbol = ByteSymbol(static_cast<uint8_t>(byte));
      const auto found = vocab_.find(symbol);
      if (found == vocab_.end()) {
        return Corrupt("model.vocab", StrCat("has no entry ", Quoted(symbol), " for byte ", byte,
                                             "; a byte-level vocabulary has all 256"));
      }
      parts_.byte_ids[byte] = found->second;
    }
    return {};
  }

  Status ReadMerges() {
    const SortedJson& merges = Field(Field(root_, "model"), "merges");
    if (!merges.is_array()) return Corrupt("model.merges", "is missing or not a list");
    if (merges.size() > kMaxEntries) {
      return Corrupt("model.merges",
                     StrCat("has ", merges.size(), " items, at most ", kMaxEntries));
    }
    parts_.merges = MergeTable(merges.size());
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      CACHALOT_RETURN_IF_ERROR(ReadMerge(merges[rank], static_cast<uint32_t>(rank)));
    }
    return {};
  }

  Status ReadMerge(const SortedJson& merge, uint32_t rank) {
    const std::optional<Sides> sides = SidesOf(merge);
    if (!sides) {
      return Corrupt(StrCat("model.merges[", rank, "] ", Shown(merge)),
                     "is neither \"left right\" nor [\"left\", \"right\"]");
    }
    const std::string product = StrCat(sides->left, sides->right);
    const std::array<std::string_view, 3> names = {sides->left, sides->right, product};
    std::array<uint32_t, 3> ids{};
    for (size_t i = 0; i < names.size(); ++i) {
      const auto found = vocab_.find(names[i]);
      if (found == vocab_.end()) {
        return Corrupt(StrCat("model.merges[", rank, "] ", Shown(merge)),
                       StrCat("needs ", Quoted(names[i]), ", which is not in model.vocab"));
      }
      ids[i] = found->second;
    }
    if (!parts_.merges.Insert(ids[0], ids[1], {rank, ids[2]})) {
      return Corrupt(StrCat("model.merges[", rank, "] ", Shown(merge)), "repeats an earlier one");
    }
    return {};
  }

  struct Sides {
    std::string_view left, right;
  };

  static std::optional<Sides> SidesOf(const SortedJson& merge) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      return Sides{merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
    }
    if (!merge.is_string()) return std::nullopt;
    const std::string_view text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      return std::nullopt;
    }
    return Sides{text.substr(0, space), text.substr(space + 1)};
  }

  const SortedJson& root_;
  std::string_view name_;
  TokenizerParts parts_;
  std::vector<const std::string*> contents_;  // by id; null: no entry yet
  std::vector<bool> is_added_;                // by id
  std::unordered_map<std::string_view, uint32_t> vocab_;
};

}  // namespace

Result<TokenizerParts> ParseTokenizerJson(std::string_view text, std::string_view name) {
  CACHALOT_TRY(const SortedJson root, ParseSortedJson(text, name));
  return Parser(root, name).Run();
}

}  // namespace cachalot::tokenizer
