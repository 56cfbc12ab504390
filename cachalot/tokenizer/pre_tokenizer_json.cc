// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/pre_tokenizer_json.h"

#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/tokenizer/json_fields.h"
#include "cachalot/tokenizer/regex_dialect.h"

namespace cachalot::tokenizer {
namespace {

// Nothing known has more than four; each costs a pass over the text.
constexpr size_t kMaxSteps = 16;

// What ByteLevel cuts by with `use_regex`: the expression of GPT-2.
constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class StepReader {
 public:
  explicit StepReader(std::string_view name) : name_(name) {}

  Result<PreTokenizer> Read(const SortedJson& field) {
    if (Field(field, "type") != "Sequence") {
      CACHALOT_RETURN_IF_ERROR(ReadStep(field, "pre_tokenizer", /*last=*/true));
      return PreTokenizer(std::move(steps_), add_prefix_space_);
    }
    const SortedJson& list = Field(field, "pretokenizers");
    if (!list.is_array() || list.empty() || list.size() > kMaxSteps) {
      return Unsupported("pre_tokenizer.pretokenizers", list,
                         StrCat("a list of 1 to ", kMaxSteps, " steps"));
    }
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string item = StrCat("pre_tokenizer.pretokenizers[", i, "]");
      CACHALOT_RETURN_IF_ERROR(ReadStep(list[i], item, i + 1 == list.size()));
    }
    return PreTokenizer(std::move(steps_), add_prefix_space_);
  }

 private:
  Error Unsupported(std::string_view item, const SortedJson& found,
                    std::string_view expected) const {
    return {ErrorCode::kUnsupported,
            StrCat(name_, ": ", item, " is ", Shown(found), ", only ", expected, " is read")};
  }

  // ByteLevel comes last: after it the text is no longer text.
  Status ReadStep(const SortedJson& step, const std::string& item, bool last) {
    const SortedJson& type = Field(step, "type");
    if (last && type == "ByteLevel") return ReadByteLevel(step, item);
    if (!last && type == "Split") return ReadSplit(step, item);
    if (!last && type == "Digits") return ReadDigits(step, item);
    return Unsupported(item + ".type", type,
                       last ? "ByteLevel as the last step"
                            : "Split or Digits before the last step, ByteLevel as the last,");
  }

  Status AddStep(const std::string& regex, const std::string& item) {
    CACHALOT_TRY(SplitRegex step, SplitRegex::Compile(regex, StrCat(name_, ": ", item)));
    steps_.push_back(std::move(step));
    return {};
  }

  Status AddOniguruma(std::string_view regex, const std::string& item) {
    CACHALOT_TRY(const std::string translated, TranslateRegex(regex, StrCat(name_, ": ", item)));
    return AddStep(translated, item);
  }

  // With `Isolated` matches and gaps both become pieces, so `invert` changes nothing.
  Status ReadSplit(const SortedJson& step, const std::string& item) {
    const SortedJson& behavior = Field(step, "behavior");
    if (behavior != "Isolated") return Unsupported(item + ".behavior", behavior, "Isolated");
    const SortedJson& pattern = Field(step, "pattern");
    const SortedJson& regex = Field(pattern, "Regex");
    if (regex.is_string()) return AddOniguruma(regex.get_ref<const std::string&>(), item);
    const SortedJson& literal = Field(pattern, "String");
    if (!literal.is_string()) {
      return Unsupported(item + ".pattern", pattern, "one Regex or String");
    }
    const auto& text = literal.get_ref<const std::string&>();
    if (text.empty() || text.size() > kMaxRegexBytes) {
      return Unsupported(item + ".pattern.String", literal,
                         StrCat("1 to ", kMaxRegexBytes, " bytes"));
    }
    return AddStep(QuoteRegex(text), item);
  }

  // One piece a digit, or one a run of digits.
  Status ReadDigits(const SortedJson& step, const std::string& item) {
    CACHALOT_TRY(const bool individual, ReadFlag(step, "individual_digits", item, false));
    return AddStep(individual ? "\\p{N}" : "\\p{N}+", item);
  }

  Status ReadByteLevel(const SortedJson& step, const std::string& item) {
    CACHALOT_TRY(add_prefix_space_, ReadFlag(step, "add_prefix_space", item, true));
    CACHALOT_TRY(const bool use_regex, ReadFlag(step, "use_regex", item, true));
    return use_regex ? AddOniguruma(kGpt2Regex, item) : Status();
  }

  // `absent` is what the tokenizers library takes when the field is not there.
  Result<bool> ReadFlag(const SortedJson& step, const char* key, const std::string& item,
                        bool absent) const {
    const SortedJson& flag = Field(step, key);
    if (flag.is_null()) return absent;
    if (!flag.is_boolean()) return Unsupported(StrCat(item, ".", key), flag, "true or false");
    return flag.get<bool>();
  }

  std::string_view name_;
  std::vector<SplitRegex> steps_;
  bool add_prefix_space_ = false;
};

}  // namespace

Result<PreTokenizer> ParsePreTokenizer(const SortedJson& field, std::string_view name) {
  return StepReader(name).Read(field);
}

}  // namespace cachalot::tokenizer
