// SPDX-License-Identifier: Apache-2.0
// One table of a recipe, read strictly. The only user of toml++ is recipe.cc, which includes this.
#pragma once

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
// toml++ 3.3 asserts that a table's name begins like a key before it reports one that does not
// ("[= 1"). Without the assertion it reports it.
#define TOML_ASSERT(expr) static_cast<void>(0)
#include <fmt/format.h>
#include <toml++/toml.h>

#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/base/strings.h"

namespace cachalot::train {

// Keeps the first complaint of a whole file.
struct TomlComplaint {
  std::string file;
  std::optional<Error> error;

  void Say(const toml::source_region& where, const std::string& what) {
    if (error) return;
    error = Error{ErrorCode::kInvalidArgument, StrCat(file, ":", where.begin.line, ": ", what)};
  }
};

class TomlTable {
 public:
  // `name` as it is spelled in the file, "[schedule]"; `table` may be null: an absent table has
  // defaults, and requirements that fail.
  TomlTable(const toml::table* table, std::string name, TomlComplaint& complaint)
      : table_(table), name_(std::move(name)), complaint_(complaint) {}

  // Whole number from min to max. Without `required`, absent keeps `out`.
  template <typename T>
  void Whole(const char* key, T& out, uint64_t min, uint64_t max, bool required = false) {
    const toml::node* node = Find(key, required);
    if (node == nullptr) return;
    const std::optional<int64_t> value = node->is_integer() ? node->value<int64_t>() : std::nullopt;
    if (!value || *value < 0 || static_cast<uint64_t>(*value) < min ||
        static_cast<uint64_t>(*value) > max) {
      return Refuse(key, *node, StrCat("a whole number from ", min, " to ", max));
    }
    out = static_cast<T>(*value);
  }

  // Number from min to max.
  template <typename T>
  void Number(const char* key, T& out, double min, double max, bool required = false) {
    const toml::node* node = Find(key, required);
    if (node == nullptr) return;
    const std::optional<double> value = node->is_number() ? node->value<double>() : std::nullopt;
    if (!value || !(*value >= min && *value <= max)) {  // NaN too
      return Refuse(key, *node, StrCat("a number from ", min, " to ", max));
    }
    out = static_cast<T>(*value);
  }

  void Flag(const char* key, bool& out) {
    const toml::node* node = Find(key, false);
    if (node == nullptr) return;
    if (!node->is_boolean()) return Refuse(key, *node, "true or false");
    out = *node->value<bool>();
  }

  void Text(const char* key, std::string& out, bool required = false) {
    const toml::node* node = Find(key, required);
    if (node == nullptr) return;
    if (!node->is_string()) return Refuse(key, *node, "a string");
    out = *node->value<std::string>();
  }

  // One of `names`; its index.
  template <typename E>
  void Choice(const char* key, E& out, const std::vector<std::string_view>& names) {
    const toml::node* node = Find(key, false);
    if (node == nullptr) return;
    const size_t index = IndexOf(*node, names);
    if (index == names.size()) return Refuse(key, *node, StrCat("one of ", Quoted(names)));
    out = static_cast<E>(index);
  }

  // A list of `names`; add(index) for each.
  template <typename Add>
  void Choices(const char* key, std::span<const std::string_view> names, Add&& add) {
    const toml::node* node = Find(key, false);
    if (node == nullptr) return;
    const std::string expected = StrCat("a list of names among ", Quoted(names));
    if (!node->is_array()) return Refuse(key, *node, expected);
    for (const toml::node& item : *node->as_array()) {
      const size_t index = IndexOf(item, names);
      if (index == names.size()) return Refuse(key, item, expected);
      add(index);
    }
  }

  // A table, or null; counts as known.
  const toml::table* Table(const char* key) {
    const toml::node* node = Find(key, false);
    if (node == nullptr) return nullptr;
    if (!node->is_table()) Refuse(key, *node, "a table");
    return node->as_table();
  }
  // An array of tables, or null.
  const toml::array* Tables(const char* key) {
    const toml::node* node = Find(key, false);
    if (node == nullptr) return nullptr;
    if (!node->is_array_of_tables()) {
      Refuse(key, *node, "an array of tables");
      return nullptr;
    }
    return node->as_array();
  }

  // Marks `key` as known; null if absent (a complaint, if required).
  const toml::node* Find(const char* key, bool required) {
    known_.insert(key);
    const toml::node* node = table_ == nullptr ? nullptr : table_->get(key);
    if (node == nullptr && required) {
      Complain(table_ == nullptr ? toml::source_region{} : table_->source(),
               StrCat(name_, " needs ", key));
    }
    return node;
  }

  void Refuse(const char* key, const toml::node& node, const std::string& expected) {
    Complain(node.source(), StrCat(name_, ".", key, " is ", Shown(node), ", expected ", expected));
  }
  void Complain(const toml::source_region& where, const std::string& what) {
    complaint_.Say(where, what);
  }

  // Refuses what nobody asked for.
  void Finish() {
    if (table_ == nullptr) return;
    for (const auto& [key, node] : *table_) {
      if (known_.count(std::string(key.str())) != 0) continue;
      Complain(key.source(),
               StrCat("unknown key '", std::string(key.str()).substr(0, 60), "' in ", name_,
                      "; known are ", fmt::format("{}", fmt::join(known_, ", "))));
    }
  }

 private:
  // names.size() if it is none of them.
  static size_t IndexOf(const toml::node& node, std::span<const std::string_view> names) {
    const std::optional<std::string> text = node.value_exact<std::string>();
    size_t i = 0;
    while (i < names.size() && names[i] != text) ++i;
    return i;
  }
  static std::string Quoted(std::span<const std::string_view> names) {
    return StrCat("\"", fmt::format("{}", fmt::join(names, "\", \"")), "\"");
  }
  static std::string Shown(const toml::node& node) {
    if (const auto v = node.as_string()) return StrCat("\"", v->get().substr(0, 60), "\"");
    if (const auto v = node.as_integer()) return StrCat(v->get());
    if (const auto v = node.as_floating_point()) return StrCat(v->get());
    if (const auto v = node.as_boolean()) return v->get() ? "true" : "false";
    return node.is_table() ? "a table" : node.is_array() ? "an array" : "something else";
  }

  const toml::table* table_;
  std::string name_;
  TomlComplaint& complaint_;
  std::set<std::string> known_;
};

}  // namespace cachalot::train
