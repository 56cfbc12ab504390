// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/run_state.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <optional>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::train {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "run states are little-endian");

constexpr char kMagic[8] = {'C', 'A', 'C', 'H', 'R', 'U', 'N', '\n'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kByteOrder = 0x01020304;
constexpr uint64_t kMaxMetaBytes = uint64_t{256} << 20;
constexpr std::string_view kSuffix = ".run";

// As docs/formats/run_state.md draws it.
struct Header {
  char magic[8];
  uint32_t version;
  uint32_t byte_order;
  uint64_t meta_bytes;
  uint64_t body_bytes;
  uint64_t meta_checksum;
  uint64_t body_checksum;
  uint64_t reserved;
  uint64_t header_checksum;  // of all before it
};
static_assert(sizeof(Header) == 64);

// The arrays of the body, in order: for each parameter value, first and second moment, then tables.
struct Array {
  void* data;  // null: not held here
  uint64_t bytes;
};

std::vector<Array> Arrays(ParameterSet& set, Optimizer& optimizer) {
  std::vector<Array> arrays;
  for (size_t i = 0; i < set.parameters.size(); ++i) {
    OptimizerState& state = optimizer.state()[i];
    const uint64_t bytes = set.parameters[i].size() * sizeof(float);
    const uint32_t moments = NumMoments(optimizer.rules()[i]);
    arrays.push_back({set.parameters[i].value.data(), bytes});
    if (moments > 0) arrays.push_back({state.first.data(), bytes});
    if (moments > 1) arrays.push_back({state.second.data(), bytes});
  }
  for (ExpertTable& table : set.tables) {
    arrays.push_back({table.ids.data(), table.ids.size() * sizeof(uint32_t)});
  }
  return arrays;
}

Json DescribeTensors(const ParameterSet& set, const Optimizer& optimizer) {
  Json list = Json::array();
  for (size_t i = 0; i < set.parameters.size(); ++i) {
    const Parameter& p = set.parameters[i];
    list.push_back({{"name", p.name},
                    {"rows", p.rows},
                    {"cols", p.cols},
                    {"moments", NumMoments(optimizer.rules()[i])},
                    {"steps", optimizer.state()[i].steps}});
  }
  return list;
}

Json DescribeTables(const ParameterSet& set) {
  Json list = Json::array();
  for (const ExpertTable& table : set.tables) {
    list.push_back({{"name", table.name}, {"rows", table.rows}, {"cols", table.cols}});
  }
  return list;
}

std::string MetaText(const RunState& state, const ParameterSet& set, const Optimizer& optimizer) {
  Json numbers = Json::object();
  for (const auto& [name, value] : state.numbers) numbers[name] = value;
  const Json meta = {
      {"recipe", state.recipe},       {"step", state.step},
      {"tokens", state.tokens},       {"epoch", state.data.epoch},
      {"row", state.data.row},        {"sequence_length", state.data.sequence_length},
      {"numbers", numbers},           {"tensors", DescribeTensors(set, optimizer)},
      {"tables", DescribeTables(set)}};
  return meta.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<uint64_t> Whole(const Json& json, const char* key, std::string_view name) {
  const auto field = json.find(key);
  if (field == json.end() || !field->is_number_unsigned()) {
    return Error{ErrorCode::kDataCorruption, StrCat(name, ": ", key, " is no whole number")};
  }
  return field->get<uint64_t>();
}

Result<RunState> StateFromMeta(const Json& meta, std::string_view name) {
  RunState state;
  const Json recipe = meta.value("recipe", Json());
  const Json numbers = meta.value("numbers", Json());
  if (!recipe.is_string() || !numbers.is_object()) {
    return Error{ErrorCode::kDataCorruption, StrCat(name, ": recipe or numbers is missing")};
  }
  state.recipe = recipe.get<std::string>();
  CACHALOT_TRY(state.step, Whole(meta, "step", name));
  CACHALOT_TRY(state.tokens, Whole(meta, "tokens", name));
  CACHALOT_TRY(state.data.epoch, Whole(meta, "epoch", name));
  CACHALOT_TRY(state.data.row, Whole(meta, "row", name));
  CACHALOT_TRY(const uint64_t length, Whole(meta, "sequence_length", name));
  if (length > (1u << 30)) {
    return Error{ErrorCode::kDataCorruption, StrCat(name, ": sequence_length is ", length)};
  }
  state.data.sequence_length = static_cast<uint32_t>(length);
  for (const auto& [key, value] : numbers.items()) {
    CACHALOT_TRY(state.numbers[key], Whole(numbers, key.c_str(), name));
  }
  return state;
}

// Step counts of the file's tensors, if they are the set's, in the same order.
Result<std::vector<uint64_t>> MatchTensors(const Json& meta, const ParameterSet& set,
                                           const Optimizer& optimizer, std::string_view name) {
  const Json found = meta.value("tensors", Json());
  const Json expected = DescribeTensors(set, optimizer);
  if (!found.is_array()) {
    return Error{ErrorCode::kDataCorruption, StrCat(name, ": tensors is no list")};
  }
  std::vector<uint64_t> steps;
  for (size_t i = 0; i < std::max(found.size(), expected.size()); ++i) {
    Json a = i < found.size() ? found[i] : Json("nothing");
    const Json b = i < expected.size() ? expected[i] : Json("nothing");
    uint64_t count = 0;
    if (a.is_object() && b.is_object()) {
      CACHALOT_TRY(count, Whole(a, "steps", name));
      a["steps"] = b["steps"];
    }
    if (a != b) {
      return Error{ErrorCode::kInvalidArgument,
                   StrCat(name, ": tensor ", i, " is ", a.dump(-1, ' ', true).substr(0, 200),
                          ", the recipe's model has ", b.dump().substr(0, 200),
                          "; resume with the recipe the run began with")};
    }
    steps.push_back(count);
  }
  if (meta.value("tables", Json()) != DescribeTables(set)) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(name,
                        ": has other hash layers than the recipe's model; resume with the "
                        "recipe the run began with")};
  }
  return steps;
}

Status CheckHeader(const Header& h, std::string_view name, uint64_t size) {
  const auto corrupt = [&](const std::string& what) {
    return Error{ErrorCode::kDataCorruption, StrCat(name, ": ", what)};
  };
  if (std::memcmp(h.magic, kMagic, sizeof(kMagic)) != 0) {
    return corrupt("is no checkpoint of a training run");
  }
  if (h.byte_order != kByteOrder) return corrupt("byte order mark is not that of little-endian");
  if (h.version != kVersion) {
    return Error{ErrorCode::kVersionMismatch, StrCat(name, ": run state version ", h.version,
                                                     ", this program reads ", kVersion)};
  }
  if (h.header_checksum != io::Checksum64(&h, offsetof(Header, header_checksum))) {
    return corrupt("the header's checksum does not match");
  }
  if (h.meta_bytes > kMaxMetaBytes || h.body_bytes > size ||
      size != sizeof(Header) + h.meta_bytes + h.body_bytes) {
    return corrupt(StrCat(size, " bytes, its header needs ", sizeof(Header), " + ", h.meta_bytes,
                          " + ", h.body_bytes));
  }
  return {};
}

// The step of a file name, if it is one of ours.
std::optional<uint64_t> StepOf(const std::string& file) {
  constexpr std::string_view kPrefix = "step-";
  if (!file.starts_with(kPrefix) || !file.ends_with(kSuffix)) return std::nullopt;
  const char* begin = file.data() + kPrefix.size();
  const char* end = file.data() + file.size() - kSuffix.size();
  uint64_t step = 0;
  const auto parsed = std::from_chars(begin, end, step);
  if (parsed.ec != std::errc() || parsed.ptr != end || begin == end) return std::nullopt;
  return step;
}

// Steps in `dir`, newest first.
std::vector<uint64_t> StepsIn(const std::string& dir) {
  std::vector<uint64_t> steps;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    if (const auto step = StepOf(entry.path().filename().string())) steps.push_back(*step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

}  // namespace

RunWriter::RunWriter(io::AtomicFile file, std::string meta)
    : file_(std::move(file)), meta_(std::move(meta)), checksum_(std::make_unique<io::Checksum>()) {}

// The header stands first and needs the body's checksum: it is written again at the end.
Result<RunWriter> RunWriter::Create(const std::string& path, const RunState& state,
                                    const ParameterSet& set, const Optimizer& optimizer) {
  CACHALOT_TRY(io::AtomicFile file, io::AtomicFile::Create(path));
  RunWriter writer(std::move(file), MetaText(state, set, optimizer));
  const Header nothing{};
  CACHALOT_RETURN_IF_ERROR(writer.file_.Write(&nothing, sizeof(nothing)));
  CACHALOT_RETURN_IF_ERROR(writer.file_.Write(writer.meta_.data(), writer.meta_.size()));
  return writer;
}

Status RunWriter::Append(std::span<const float> array) {
  return AppendBytes(array.data(), array.size_bytes());
}

Status RunWriter::AppendBytes(const void* data, uint64_t bytes) {
  checksum_->Update(data, bytes);
  body_bytes_ += bytes;
  return file_.Write(data, bytes);
}

Status RunWriter::Finish(const ParameterSet& set) {
  for (const ExpertTable& table : set.tables) {
    CACHALOT_RETURN_IF_ERROR(AppendBytes(table.ids.data(), table.ids.size() * sizeof(uint32_t)));
  }
  Header h{.version = kVersion,
           .byte_order = kByteOrder,
           .meta_bytes = meta_.size(),
           .body_bytes = body_bytes_,
           .meta_checksum = io::Checksum64(meta_.data(), meta_.size()),
           .body_checksum = checksum_->Digest()};
  std::memcpy(h.magic, kMagic, sizeof(kMagic));
  h.header_checksum = io::Checksum64(&h, offsetof(Header, header_checksum));
  CACHALOT_RETURN_IF_ERROR(file_.Rewrite(0, &h, sizeof(h)));
  return file_.Commit();
}

Result<RunState> LoadRun(const std::string& path, ParameterSet& set, Optimizer& optimizer) {
  CACHALOT_TRY(const io::MappedFile file, io::MappedFile::Open(path));
  return ParseRun(path, file.data(), file.size(), set, optimizer);
}

Result<RunState> ParseRun(std::string_view name, const uint8_t* data, uint64_t size,
                          ParameterSet& set, Optimizer& optimizer) {
  if (size < sizeof(Header)) {
    return Error{ErrorCode::kDataCorruption,
                 StrCat(name, ": ", size, " bytes, a run state has at least ", sizeof(Header))};
  }
  Header h;
  std::memcpy(&h, data, sizeof(h));
  CACHALOT_RETURN_IF_ERROR(CheckHeader(h, name, size));
  const uint8_t* meta_data = data + sizeof(Header);
  const uint8_t* body = meta_data + h.meta_bytes;
  if (h.meta_checksum != io::Checksum64(meta_data, h.meta_bytes) ||
      h.body_checksum != io::Checksum64(body, h.body_bytes)) {
    return Error{ErrorCode::kDataCorruption,
                 StrCat(name,
                        ": the checksum of its content does not match; remove the file to go "
                        "on from the checkpoint before it")};
  }
  const std::string_view text(reinterpret_cast<const char*>(meta_data), h.meta_bytes);
  CACHALOT_TRY(const Json meta, ParseJson(text, name));
  if (!meta.is_object()) {
    return Error{ErrorCode::kDataCorruption, StrCat(name, ": its description is no object")};
  }
  CACHALOT_TRY(RunState state, StateFromMeta(meta, name));
  CACHALOT_TRY(const std::vector<uint64_t> steps, MatchTensors(meta, set, optimizer, name));
  const std::vector<Array> arrays = Arrays(set, optimizer);
  uint64_t bytes = 0;
  for (const Array& array : arrays) bytes += array.bytes;
  if (bytes != h.body_bytes) {
    return Error{ErrorCode::kDataCorruption,
                 StrCat(name, ": ", h.body_bytes, " bytes of tensors, expected ", bytes)};
  }
  for (const Array& array : arrays) {
    if (array.data != nullptr && array.bytes > 0) std::memcpy(array.data, body, array.bytes);
    body += array.bytes;
  }
  for (size_t i = 0; i < steps.size(); ++i) optimizer.state()[i].steps = steps[i];
  return state;
}

std::string RunPath(const std::string& dir, uint64_t step) {
  return fmt::format("{}/step-{:012}{}", dir, step, kSuffix);
}

Result<std::string> LatestRun(const std::string& dir) {
  const std::vector<uint64_t> steps = StepsIn(dir);
  if (steps.empty()) return Error{ErrorCode::kNotFound, StrCat(dir, ": holds no checkpoint")};
  return RunPath(dir, steps.front());
}

Status PruneRuns(const std::string& dir, uint32_t keep) {
  std::error_code ec;
  const std::vector<uint64_t> steps = StepsIn(dir);
  for (size_t i = keep; i < steps.size(); ++i) {
    fs::remove(RunPath(dir, steps[i]), ec);
    if (ec) {
      return Error{ErrorCode::kIo,
                   StrCat(RunPath(dir, steps[i]), ": cannot remove: ", ec.message())};
    }
  }
  std::vector<fs::path> left;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    const std::string file = entry.path().filename().string();
    const size_t at = file.find(".run.tmp.");
    if (at != std::string::npos && StepOf(file.substr(0, at + kSuffix.size()))) {
      left.push_back(entry.path());
    }
  }
  for (const fs::path& path : left) fs::remove(path, ec);
  return {};
}

}  // namespace cachalot::train
