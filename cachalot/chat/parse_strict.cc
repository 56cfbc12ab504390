// SPDX-License-Identifier: Apache-2.0
#include "cachalot/chat/parse_strict.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/chat/json_fields.h"
#include "cachalot/chat/markers.h"
#include "cachalot/chat/python_json.h"

namespace cachalot::chat {
namespace {

class StrictParser {
 public:
  StrictParser(std::string_view text, const StrictOptions& options)
      : text_(text), options_(options) {
    const DsmlTags tags = TagsOf(options.format);
    block_ = StrCat("\n\n<", kDsml, tags.block);
    end_block_ = StrCat("</", kDsml, tags.block, ">");
    invoke_ = StrCat("<", kDsml, tags.invoke);
    end_invoke_ = StrCat("</", kDsml, tags.invoke);
    parameter_ = StrCat("<", kDsml, tags.parameter);
    end_parameter_ = StrCat("</", kDsml, tags.parameter);
  }

  Result<ParsedMessage> Parse() {
    if (options_.thinking) {
      CACHALOT_RETURN_IF_ERROR(ReadReasoning());
    }
    const size_t block = std::min(text_.find(block_, pos_), text_.size());
    const size_t eos = std::min(text_.find(kEos, pos_), text_.size());
    if (block == text_.size() && eos == text_.size()) return Bad("no end-of-sentence marker");
    message_.content = Take(std::min(block, eos));
    if (block < eos) {
      Eat(block_);
      CACHALOT_RETURN_IF_ERROR(ReadBlock());
      Eat(kEos);
    } else {
      Eat(kEos);
    }
    if (pos_ != text_.size()) return Bad("text after the end");
    CACHALOT_RETURN_IF_ERROR(CheckNoMarkers(message_.reasoning_content, "reasoning"));
    CACHALOT_RETURN_IF_ERROR(CheckNoMarkers(message_.content, "content"));
    return std::move(message_);
  }

 private:
  Error Bad(std::string_view what) const {
    return {ErrorCode::kInvalidArgument, StrCat("completion at byte ", pos_, ": ", what)};
  }
  bool Eat(std::string_view token) {
    if (!text_.substr(pos_).starts_with(token)) return false;
    pos_ += token.size();
    return true;
  }
  std::string Take(size_t end) {
    std::string piece(text_.substr(pos_, end - pos_));
    pos_ = end;
    return piece;
  }

  Status ReadReasoning() {
    const size_t end = text_.find(kThinkClose, pos_);
    if (end == std::string_view::npos || text_.find(block_, pos_) < end) {
      return Bad("no </think> ends the reasoning");
    }
    message_.reasoning_content = Take(end);
    Eat(kThinkClose);
    return {};
  }

  // After the opener's name.
  Status ReadBlock() {
    if (!Eat(">\n")) return Bad("expected '>' and a line feed after the opening tag");
    while (!Eat(end_block_)) {
      if (!Eat(invoke_)) return Bad("expected an invoke or the end of the block");
      CACHALOT_RETURN_IF_ERROR(ReadInvoke());
    }
    return {};
  }

  Status ReadInvoke() {
    if (!Eat(" name=\"")) return Bad("expected ' name=\"' after invoke");
    const size_t end_of_invoke = text_.find(end_invoke_, pos_);
    if (end_of_invoke == std::string_view::npos) return Bad("unterminated invoke");
    // Searched for no further than the invoke goes, or many calls would cost their square.
    const size_t parameter = text_.substr(0, end_of_invoke).find(parameter_, pos_);
    const size_t end = std::min(parameter, end_of_invoke);
    // The reference's regular expression ends with $, which also stands before a last line feed:
    // a call without parameters is written with an empty line, and read with or without it.
    const size_t tag = pos_;
    std::string_view name = text_.substr(pos_, end - pos_);
    if (name.ends_with("\">\n\n")) name.remove_suffix(1);
    if (!name.ends_with("\">\n")) {
      pos_ = tag;
      return Bad("expected '\">' and a line feed after the tool name");
    }
    name.remove_suffix(3);
    ParsedCall call;
    SetCallName(name, options_.format, call);
    pos_ = end;
    CACHALOT_RETURN_IF_ERROR(ReadParameters(call.arguments));
    call.complete = true;
    message_.tool_calls.push_back(std::move(call));
    return Eat(">\n") ? Status() : Bad("expected '>' and a line feed after the invoke");
  }

  Status ReadParameters(std::string& arguments) {
    std::set<std::string, std::less<>> seen;
    while (Eat(parameter_)) {
      CACHALOT_RETURN_IF_ERROR(ReadParameter(seen, arguments));
    }
    if (!Eat(end_invoke_)) return Bad("expected a parameter or the end of the invoke");
    arguments = StrCat("{", arguments, "}");
    return {};
  }

  Status ReadParameter(std::set<std::string, std::less<>>& seen, std::string& arguments) {
    constexpr std::string_view kTrue = "\" string=\"true\">";
    constexpr std::string_view kFalse = "\" string=\"false\">";
    if (!Eat(" name=\"")) return Bad("expected ' name=\"' after parameter");
    const size_t close = text_.find(end_parameter_, pos_);
    if (close == std::string_view::npos) return Bad("unterminated parameter");
    const std::string_view body = text_.substr(pos_, close - pos_);
    const size_t if_true = body.find(kTrue);
    const size_t if_false = body.find(kFalse);
    const size_t flag = std::min(if_true, if_false);
    if (flag == std::string_view::npos) return Bad("expected string=\"true\" or \"false\"");
    const std::string_view key = body.substr(0, flag);
    if (!seen.emplace(key).second) return Bad(StrCat("duplicate parameter ", Quoted(key)));
    const bool is_string = if_true < if_false;
    const std::string_view value = body.substr(flag + (is_string ? kTrue : kFalse).size());
    if (!arguments.empty()) arguments += ", ";
    arguments += StrCat(JsonString(key), ": ", is_string ? JsonString(value) : std::string(value));
    pos_ = close + end_parameter_.size();
    return Eat(">\n") ? Status() : Bad("expected '>' and a line feed after the parameter");
  }

  Status CheckNoMarkers(std::string_view text, std::string_view where) const {
    for (const std::string_view marker : {kBos, kEos, kThinkOpen, kThinkClose, kDsml}) {
      if (text.find(marker) != std::string_view::npos) {
        return Error{ErrorCode::kInvalidArgument,
                     StrCat("completion: marker ", marker, " left in the ", where)};
      }
    }
    return {};
  }

  std::string_view text_;
  StrictOptions options_;
  size_t pos_ = 0;
  ParsedMessage message_;
  std::string block_, end_block_, invoke_, end_invoke_, parameter_, end_parameter_;
};

}  // namespace

Result<ParsedMessage> ParseStrict(std::string_view text, const StrictOptions& options) {
  return StrictParser(text, options).Parse();
}

}  // namespace cachalot::chat
