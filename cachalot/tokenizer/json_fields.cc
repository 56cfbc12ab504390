// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tokenizer/json_fields.h"

namespace cachalot::tokenizer {

const SortedJson& Field(const SortedJson& object, const char* key) {
  static const SortedJson null;
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

std::string Shown(const SortedJson& value) {
  constexpr size_t kMaxShown = 80;
  std::string text = value.dump(-1, ' ', true, SortedJson::error_handler_t::replace);
  if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "...";
  return text;
}

}  // namespace cachalot::tokenizer
