// SPDX-License-Identifier: Apache-2.0
// cachalot tokenize: text to token ids and back, whole or one JSON value a line.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/tokenizer/tokenizer.h"

namespace cachalot::cli {
namespace {

using tokenizer::Tokenizer;

struct TokenizeFlags {
  std::string model;
  std::string file;
  bool decode = false;
  bool jsonl = false;
};

Status Write(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size()) return {};
  return Error{ErrorCode::kIo, "standard output: cannot write"};
}

Error UnknownId(std::string_view found, const Tokenizer& tokenizer) {
  return {ErrorCode::kInvalidArgument,
          StrCat("'", found, "' is no token id, expected 0 to ", tokenizer.vocab_size() - 1)};
}

Status EncodePlain(const Tokenizer& tokenizer, const std::string& text) {
  std::string out;
  for (const uint32_t id : tokenizer.Encode(text, /*parse_special=*/true)) {
    out += StrCat(out.empty() ? "" : " ", id);
  }
  return Write(out + "\n");
}

Status DecodePlain(const Tokenizer& tokenizer, std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n\v\f";
  std::string out;
  for (size_t at = text.find_first_not_of(kBlanks); at != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_of(kBlanks, at), text.size());
    const std::string_view word = text.substr(at, end - at);
    uint32_t id = 0;
    const auto parsed = std::from_chars(word.data(), word.data() + word.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != word.data() + word.size() ||
        id >= tokenizer.vocab_size()) {
      return UnknownId(word.substr(0, 40), tokenizer);
    }
    out += tokenizer.TokenBytes(id);
    at = text.find_first_not_of(kBlanks, end);
  }
  return Write(out);
}

Result<std::string> EncodeLine(const Tokenizer& tokenizer, const Json& value) {
  if (!value.is_string()) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("found a JSON ", value.type_name(), ", expected a string")};
  }
  return Json(tokenizer.Encode(value.get_ref<const std::string&>(), true)).dump();
}

Result<std::string> DecodeLine(const Tokenizer& tokenizer, const Json& value) {
  if (!value.is_array()) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("found a JSON ", value.type_name(), ", expected an array of ids")};
  }
  std::string text;
  for (const Json& item : value) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() >= tokenizer.vocab_size()) {
      const std::string found = item.dump(-1, ' ', true, Json::error_handler_t::replace);
      return UnknownId(std::string_view(found).substr(0, 40), tokenizer);
    }
    text += tokenizer.TokenBytes(item.get<uint32_t>());
  }
  // Ids that end inside a character have no JSON string; U+FFFD stands for what is missing.
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

Status ConvertLines(const Tokenizer& tokenizer, std::istream& in, const TokenizeFlags& flags) {
  const std::string name = flags.file.empty() || flags.file == "-" ? "standard input" : flags.file;
  std::string line;
  for (uint64_t number = 1; std::getline(in, line); ++number) {
    const std::string place = StrCat(name, ":", number);
    auto value = ParseJson(line, place);
    if (!value.ok()) return Error{ErrorCode::kInvalidArgument, value.error().message};
    const auto converted =
        flags.decode ? DecodeLine(tokenizer, *value) : EncodeLine(tokenizer, *value);
    if (!converted.ok()) {
      return Error{ErrorCode::kInvalidArgument, StrCat(place, ": ", converted.error().message)};
    }
    CACHALOT_RETURN_IF_ERROR(Write(*converted + "\n"));
    std::fflush(stdout);  // a program may hold a line-by-line dialog with us
  }
  if (in.bad()) return Error{ErrorCode::kIo, StrCat(name, ": cannot read")};
  return {};
}

Status TokenizeLines(const Tokenizer& tokenizer, const TokenizeFlags& flags) {
  if (flags.file.empty() || flags.file == "-") return ConvertLines(tokenizer, std::cin, flags);
  std::ifstream file(flags.file, std::ios::binary);
  if (!file) return Error{ErrorCode::kNotFound, StrCat(flags.file, ": cannot open")};
  return ConvertLines(tokenizer, file, flags);
}

Status Tokenize(const TokenizeFlags& flags) {
  CACHALOT_TRY(const std::string dir, ResolveModel(flags.model));
  CACHALOT_TRY(const auto tokenizer, Tokenizer::Load(dir));
  if (flags.jsonl) return TokenizeLines(*tokenizer, flags);
  CACHALOT_TRY(const std::string text, ReadInput(flags.file));
  const Status done = flags.decode ? DecodePlain(*tokenizer, text) : EncodePlain(*tokenizer, text);
  if (done.ok() && std::fflush(stdout) != 0) {
    return Error{ErrorCode::kIo, "standard output: cannot write"};
  }
  return done;
}

}  // namespace

void RegisterTokenize(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command = app.add_subcommand(
      "tokenize",
      "Text to token ids, or back with --decode. Special tokens in the text are parsed, no BOS is "
      "added. Needs only the model's tokenizer.json");
  AddModelOption(*command, flags->model);
  command->add_option("FILE", flags->file, "What to read (default: standard input)");
  command->add_flag("--decode", flags->decode,
                    "From ids, separated by blanks, to the exact bytes of the text");
  command->add_flag(
      "--jsonl", flags->jsonl,
      "One JSON string a line to one JSON array of ids a line (--decode: back); a bad "
      "line ends with exit code 1 and its number");
  SetExamples(*command,
              "echo -n 'Once upon a time' | cachalot tokenize\n"
              "cachalot tokenize book.txt | cachalot tokenize --decode\n"
              "echo '\"one\"' | cachalot tokenize --jsonl -m DIR");
  command->callback([flags, &exit_code] {
    if (const Status status = Tokenize(*flags); !status.ok()) exit_code = Report(status.error());
  });
}

}  // namespace cachalot::cli
