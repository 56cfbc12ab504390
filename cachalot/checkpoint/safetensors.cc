// SPDX-License-Identifier: Apache-2.0
// The safetensors header: 8 bytes little-endian length, that much JSON, then data. Every offset is
// checked before a view is handed out. [docs/formats/safetensors.md]
#include <algorithm>
#include <bit>
#include <cstring>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/checkpoint/checkpoint.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = uint64_t{256} << 20;  // Pro's largest shard header is 20 MB
constexpr size_t kMaxRank = 8;

Error Corrupt(std::string_view file, std::string message) {
  return {ErrorCode::kDataCorruption, StrCat(file, ": ", message)};
}

Result<std::vector<uint64_t>> ReadNumbers(const Json& value, size_t max_count) {
  const auto bad = Error{ErrorCode::kDataCorruption, ""};
  if (!value.is_array() || value.size() > max_count) return bad;
  std::vector<uint64_t> numbers;
  for (const Json& item : value) {
    if (!item.is_number_unsigned()) return bad;
    numbers.push_back(item.get<uint64_t>());
  }
  return numbers;
}

// Bytes of the tensor by dtype and shape; false on overflow.
bool ShapeBytes(const TensorInfo& info, uint64_t& bytes) {
  bytes = DTypeBytes(info.dtype);
  for (const uint64_t dim : info.shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes)) return false;
  }
  return true;
}

// One header entry. `data` is the start of the data section of `data_bytes`.
Result<TensorInfo> ParseTensor(std::string_view file, const std::string& name, const Json& entry,
                               const uint8_t* data, uint64_t data_bytes) {
  const std::string where = StrCat("tensor '", name, "': ");
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() ||
      !entry.contains("shape") || !entry.contains("data_offsets")) {
    return Corrupt(file, where + "needs dtype, shape and data_offsets");
  }
  TensorInfo info;
  info.name = name;
  const auto& dtype_name = entry["dtype"].get_ref<const std::string&>();
  const auto dtype = DTypeFromName(dtype_name);
  if (!dtype) return Corrupt(file, StrCat(where, "dtype '", dtype_name, "' is not one V4 uses"));
  info.dtype = *dtype;
  const auto shape = ReadNumbers(entry["shape"], kMaxRank);
  if (!shape.ok()) return Corrupt(file, where + "shape is no list of up to 8 sizes");
  info.shape = *shape;
  const auto offsets = ReadNumbers(entry["data_offsets"], 2);
  if (!offsets.ok() || offsets->size() != 2 || (*offsets)[0] > (*offsets)[1]) {
    return Corrupt(file, where + "data_offsets are no [begin, end]");
  }
  const uint64_t begin = (*offsets)[0];
  const uint64_t end = (*offsets)[1];
  if (end > data_bytes) {
    return Corrupt(file, StrCat(where, "ends at byte ", end, " of the data, the file has ",
                                data_bytes, "; truncated download?"));
  }
  uint64_t bytes = 0;
  if (!ShapeBytes(info, bytes) || bytes != end - begin) {
    return Corrupt(
        file, StrCat(where, end - begin, " bytes, ", dtype_name, " of its shape needs ", bytes));
  }
  info.data = data + begin;
  info.bytes = bytes;
  return info;
}

// Sorts a copy of the extents and looks at neighbors.
Status CheckNoOverlap(std::string_view file, const std::vector<TensorInfo>& tensors) {
  std::vector<const TensorInfo*> order;
  for (const TensorInfo& t : tensors) {
    if (t.bytes > 0) order.push_back(&t);
  }
  std::ranges::sort(order, {}, &TensorInfo::data);
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->data + order[i - 1]->bytes > order[i]->data) {
      return Corrupt(
          file, StrCat("tensors '", order[i - 1]->name, "' and '", order[i]->name, "' overlap"));
    }
  }
  return {};
}

}  // namespace

uint64_t TensorInfo::num_elements() const { return bytes / DTypeBytes(dtype); }

Result<std::vector<TensorInfo>> ParseSafetensors(std::string_view name, const uint8_t* data,
                                                 uint64_t file_bytes) {
  if (file_bytes < kLengthBytes) {
    return Corrupt(name, StrCat(file_bytes, " bytes, a safetensors file has at least 8"));
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, data, sizeof(header_bytes));
  if (header_bytes > file_bytes - kLengthBytes || header_bytes > kMaxHeaderBytes) {
    return Corrupt(name, StrCat("header of ", header_bytes, " bytes in a file of ", file_bytes,
                                " (at most ", kMaxHeaderBytes, " are read)"));
  }
  const std::string_view text(reinterpret_cast<const char*>(data) + kLengthBytes, header_bytes);
  CACHALOT_TRY(const Json header, ParseJson(text, name));
  if (!header.is_object()) return Corrupt(name, "the header is no JSON object");
  const uint8_t* section = data + kLengthBytes + header_bytes;
  std::vector<TensorInfo> tensors;
  tensors.reserve(header.size());
  for (const auto& [key, entry] : header.items()) {
    if (key == "__metadata__") continue;
    CACHALOT_TRY(TensorInfo info,
                 ParseTensor(name, key, entry, section, file_bytes - kLengthBytes - header_bytes));
    tensors.push_back(std::move(info));
  }
  CACHALOT_RETURN_IF_ERROR(CheckNoOverlap(name, tensors));
  return tensors;
}

Status WriteSafetensors(const std::string& path, const std::vector<TensorInfo>& tensors) {
  Json header = Json::object();
  uint64_t at = 0;
  for (const TensorInfo& t : tensors) {
    header[t.name] = {{"dtype", std::string(DTypeName(t.dtype))},
                      {"shape", t.shape},
                      {"data_offsets", {at, at + t.bytes}}};
    at += t.bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data starts aligned to 8
  std::string out(sizeof(uint64_t), '\0');
  const uint64_t length = text.size();
  std::memcpy(out.data(), &length, sizeof(length));
  out += text;
  out.reserve(out.size() + at);
  for (const TensorInfo& t : tensors) out.append(reinterpret_cast<const char*>(t.data), t.bytes);
  return io::WriteFileAtomic(path, out);
}

}  // namespace cachalot::checkpoint
