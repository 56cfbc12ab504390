// SPDX-License-Identifier: Apache-2.0
#include "cachalot/checkpoint/header_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

#include "cachalot/base/strings.h"

namespace cachalot::checkpoint {
namespace {

using nlohmann::json;

constexpr size_t kMaxNameBytes = 1024;
constexpr size_t kMaxListLength = 8;  // a tensor's rank; V4's is at most 3

// Maps the parser's events to a few hooks and keeps the first complaint. The parser is iterative,
// so nesting costs a bit a level and no stack.
class EventReader : public nlohmann::json_sax<json> {
 public:
  explicit EventReader(std::string_view file) : file_(file) {}

  Status Read(std::string_view text) {
    try {
      if (json::sax_parse(text, this)) return {};
    } catch (const std::exception& e) {  // bad_alloc
      return Error{ErrorCode::kResourceExhausted, StrCat(file_, ": ", e.what())};
    }
    return *error_;
  }

  bool null() final { return OnScalar(); }
  bool boolean(bool) final { return OnScalar(); }
  bool number_integer(number_integer_t) final { return OnScalar(); }
  bool number_unsigned(number_unsigned_t value) final { return OnNumber(value); }
  bool number_float(number_float_t, const string_t&) final { return OnScalar(); }
  bool string(string_t& value) final { return OnString(value); }
  bool binary(binary_t&) final { return OnScalar(); }
  bool key(string_t& value) final { return OnKey(value); }
  bool start_object(size_t) final { return Open(/*object=*/true); }
  bool start_array(size_t) final { return Open(/*object=*/false); }
  bool end_object() final { return Close(); }
  bool end_array() final { return Close(); }
  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception&) final {
    return Fail(StrCat("not valid JSON at byte ", at));
  }

 protected:
  virtual bool OnOpen(bool object) = 0;  // depth() is that of the parent, here and in OnClose
  virtual bool OnClose() = 0;
  virtual bool OnKey(const std::string& key) = 0;
  virtual bool OnString(const std::string& value) = 0;
  virtual bool OnNumber(uint64_t value) = 0;
  virtual bool OnScalar() = 0;  // any other value that is no container

  size_t depth() const { return depth_; }
  bool Fail(const std::string& what) {
    if (!error_) error_ = Error{ErrorCode::kDataCorruption, StrCat(file_, ": ", what)};
    return false;
  }
  // A tensor name: usable in messages, seen for the first time.
  bool AddName(const std::string& name) {
    const bool control =
        std::ranges::any_of(name, [](char c) { return static_cast<unsigned char>(c) < 0x20; });
    if (control || name.size() > kMaxNameBytes) {
      return Fail(StrCat("tensor name ", Shown(name), " has ", name.size(), " bytes, expected up ",
                         "to 1024 without control characters"));
    }
    if (names_.insert(name).second) return true;
    return Fail(StrCat("tensor '", name, "' is listed twice"));
  }

 private:
  bool Open(bool object) {
    if (!OnOpen(object)) return false;
    ++depth_;
    return true;
  }
  bool Close() {
    --depth_;
    return OnClose();
  }

  std::string_view file_;
  size_t depth_ = 0;
  std::unordered_set<std::string> names_;
  std::optional<Error> error_;
};

// {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {...}}
class HeaderReader : public EventReader {
 public:
  using EventReader::EventReader;
  std::vector<HeaderEntry> entries;

 private:
  enum Field : uint32_t { kOther = 0, kDtype = 1, kShape = 2, kOffsets = 4, kAll = 7 };

  bool OnOpen(bool object) override {
    if (depth() == 0) return object || Fail("the header is no JSON object");
    if (in_metadata_) return true;
    if (depth() == 1) {
      if (!object) return FailTensor("is no object");
      entries.push_back({.name = name_});
      seen_ = 0;
      return true;
    }
    if (field_ == kOther) return true;
    if (depth() != 2 || object || field_ == kDtype) return FailField();
    seen_ |= field_;
    List().clear();
    return true;
  }

  bool OnClose() override {
    if (depth() != 1) return true;
    const bool complete = in_metadata_ || seen_ == kAll;
    in_metadata_ = false;
    if (complete && (entries.empty() || entries.back().data_offsets.size() == 2)) return true;
    return FailTensor("needs dtype, shape and data_offsets [begin, end]");
  }

  bool OnKey(const std::string& key) override {
    if (depth() == 1) {
      in_metadata_ = key == "__metadata__";
      name_ = key;
      return in_metadata_ || AddName(key);
    }
    if (in_metadata_ || depth() != 2) return true;
    field_ = key == "dtype"          ? kDtype
             : key == "shape"        ? kShape
             : key == "data_offsets" ? kOffsets
                                     : kOther;
    return true;
  }

  bool OnString(const std::string& value) override {
    if (depth() != 2 || in_metadata_ || field_ != kDtype) return OnScalar();
    seen_ |= kDtype;
    entries.back().dtype = value;
    return true;
  }

  bool OnNumber(uint64_t value) override {
    if (depth() != 3 || in_metadata_ || field_ == kOther) return OnScalar();
    if (List().size() == kMaxListLength) return FailField();
    List().push_back(value);
    return true;
  }

  bool OnScalar() override {
    if (depth() == 0) return Fail("the header is no JSON object");
    if (in_metadata_) {
      if (depth() == 1) in_metadata_ = false;
      return true;
    }
    if (depth() == 1) return FailTensor("is no object");
    return field_ == kOther || FailField();
  }

  std::vector<uint64_t>& List() {
    return field_ == kShape ? entries.back().shape : entries.back().data_offsets;
  }
  bool FailTensor(std::string_view what) { return Fail(StrCat("tensor '", name_, "': ", what)); }
  bool FailField() {
    return FailTensor(field_ == kDtype   ? "dtype is no string"
                      : field_ == kShape ? "shape is no list of up to 8 sizes"
                                         : "data_offsets are no [begin, end]");
  }

  std::string name_;
  bool in_metadata_ = false;
  Field field_ = kOther;
  uint32_t seen_ = 0;
};

// {"metadata": {...}, "weight_map": {"tensor": "shard"}}
class WeightMapReader : public EventReader {
 public:
  using EventReader::EventReader;
  std::vector<WeightMapEntry> entries;
  bool found = false;

 private:
  bool OnOpen(bool object) override {
    if (depth() == 0) return object || Fail("the index is no JSON object");
    if (depth() == 1 && in_map_) {
      found = true;
      return object || Fail("weight_map is no object");
    }
    return !in_map_ || FailShard();
  }
  bool OnClose() override {
    if (depth() == 1) in_map_ = false;
    return true;
  }
  bool OnKey(const std::string& key) override {
    if (depth() == 1) in_map_ = key == "weight_map";
    if (depth() != 2 || !in_map_) return true;
    name_ = key;
    return AddName(key);
  }
  bool OnString(const std::string& value) override {
    if (depth() != 2 || !in_map_) return OnScalar();
    // A name from a file must not reach outside the checkpoint.
    if (value.empty() || value[0] == '.' || value.find('/') != std::string::npos ||
        value.find('\0') != std::string::npos || value.size() > kMaxNameBytes) {
      return Fail(StrCat("weight_map['", name_, "'] names ", Shown(value),
                         ", expected a file of the same folder"));
    }
    entries.push_back({.tensor = name_, .shard = value});
    return true;
  }
  bool OnNumber(uint64_t) override { return OnScalar(); }
  bool OnScalar() override {
    if (depth() == 0) return Fail("the index is no JSON object");
    if (!in_map_) return true;
    return depth() == 1 ? Fail("weight_map is no object") : FailShard();
  }
  bool FailShard() { return Fail(StrCat("weight_map['", name_, "'] is no file name")); }

  std::string name_;
  bool in_map_ = false;
};

}  // namespace

Result<std::vector<HeaderEntry>> ReadHeaderJson(std::string_view text, std::string_view file) {
  HeaderReader reader(file);
  CACHALOT_RETURN_IF_ERROR(reader.Read(text));
  return std::move(reader.entries);
}

Result<std::vector<WeightMapEntry>> ReadWeightMap(std::string_view text, std::string_view file) {
  WeightMapReader reader(file);
  CACHALOT_RETURN_IF_ERROR(reader.Read(text));
  if (!reader.found) {
    return Error{ErrorCode::kDataCorruption, StrCat(file, ": has no weight_map")};
  }
  return std::move(reader.entries);
}

std::string Shown(std::string_view text) {
  constexpr size_t kMaxShown = 80;
  const bool cut = text.size() > kMaxShown;
  std::string out = json(text.substr(0, kMaxShown))
                        .dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
  if (cut) out += "...";
  return out;
}

}  // namespace cachalot::checkpoint
