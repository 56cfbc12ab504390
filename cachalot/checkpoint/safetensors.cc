// SPDX-License-Identifier: Apache-2.0
// The safetensors header: 8 bytes little-endian length, that much JSON, then data. Every offset is
// checked before a view is handed out. [docs/formats/safetensors.md]
#include <algorithm>
#include <bit>
#include <cstring>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/checkpoint/checkpoint.h"
#include "cachalot/checkpoint/header_json.h"
#include "cachalot/io/atomic_file.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = uint64_t{256} << 20;  // Pro's largest shard header is 20 MB

Error Corrupt(std::string_view file, std::string message) {
  return {ErrorCode::kDataCorruption, StrCat(file, ": ", message)};
}

// Bytes of the tensor by dtype and shape; false on overflow.
bool ShapeBytes(const TensorInfo& info, uint64_t& bytes) {
  bytes = DTypeBytes(info.dtype);
  for (const uint64_t dim : info.shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes)) return false;
  }
  return true;
}

// `data` is the start of the data section of `data_bytes`.
Result<TensorInfo> CheckTensor(std::string_view file, HeaderEntry entry, const uint8_t* data,
                               uint64_t data_bytes) {
  const std::string where = StrCat("tensor '", entry.name, "': ");
  const auto dtype = DTypeFromName(entry.dtype);
  if (!dtype) return Corrupt(file, StrCat(where, "dtype ", Shown(entry.dtype), " is unknown"));
  const uint64_t begin = entry.data_offsets[0];
  const uint64_t end = entry.data_offsets[1];
  if (begin > end) return Corrupt(file, StrCat(where, "begins at ", begin, ", ends at ", end));
  if (end > data_bytes) {
    return Corrupt(file, StrCat(where, "ends at byte ", end, " of the data, the file has ",
                                data_bytes, "; truncated download?"));
  }
  TensorInfo info{.name = std::move(entry.name), .dtype = *dtype, .shape = std::move(entry.shape)};
  uint64_t bytes = 0;
  if (!ShapeBytes(info, bytes)) return Corrupt(file, where + "shape overflows 64 bits");
  if (bytes != end - begin) {
    return Corrupt(
        file, StrCat(where, end - begin, " bytes, ", entry.dtype, " of its shape needs ", bytes));
  }
  info.data = data + begin;
  info.bytes = bytes;
  return info;
}

// The format has neither overlaps nor holes nor trailing bytes: a file with any was damaged or put
// together by hand.
Status CheckCoverage(std::string_view file, const std::vector<TensorInfo>& tensors,
                     const uint8_t* data, uint64_t data_bytes) {
  std::vector<const TensorInfo*> order;
  for (const TensorInfo& t : tensors) {
    if (t.bytes > 0) order.push_back(&t);
  }
  std::ranges::sort(order, {}, &TensorInfo::data);
  uint64_t covered = 0;
  std::string_view last = "(none)";
  for (const TensorInfo* t : order) {
    const auto begin = static_cast<uint64_t>(t->data - data);
    if (begin < covered) {
      return Corrupt(file, StrCat("tensors '", last, "' and '", t->name, "' overlap"));
    }
    if (begin > covered) {
      return Corrupt(file, StrCat("tensor '", t->name, "' begins at byte ", begin,
                                  " of the data, expected ", covered, " (no holes)"));
    }
    covered = begin + t->bytes;
    last = t->name;
  }
  if (covered == data_bytes) return {};
  return Corrupt(file, StrCat(data_bytes, " bytes of data, its tensors need ", covered,
                              "; not the file that was published?"));
}

// What is left where a repository was cloned without its large files.
bool IsLfsPointer(std::string_view bytes) {
  return bytes.starts_with("version https://git-lfs.github.com/");
}

}  // namespace

uint64_t TensorInfo::num_elements() const { return bytes / DTypeBytes(dtype); }

Result<std::vector<TensorInfo>> ParseSafetensors(std::string_view name, const uint8_t* data,
                                                 uint64_t file_bytes) {
  if (file_bytes < kLengthBytes) {
    return Corrupt(name, StrCat(file_bytes, " bytes, a safetensors file has at least 8"));
  }
  if (IsLfsPointer({reinterpret_cast<const char*>(data), file_bytes})) {
    return Corrupt(name, "is a Git LFS pointer, not the file itself; run `git lfs pull`");
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, data, sizeof(header_bytes));
  if (header_bytes > file_bytes - kLengthBytes || header_bytes > kMaxHeaderBytes) {
    return Corrupt(name, StrCat("header of ", header_bytes, " bytes in a file of ", file_bytes,
                                " (at most ", kMaxHeaderBytes, " are read)"));
  }
  const std::string_view text(reinterpret_cast<const char*>(data) + kLengthBytes, header_bytes);
  CACHALOT_TRY(std::vector<HeaderEntry> entries, ReadHeaderJson(text, name));
  const uint8_t* section = data + kLengthBytes + header_bytes;
  const uint64_t section_bytes = file_bytes - kLengthBytes - header_bytes;
  std::vector<TensorInfo> tensors;
  tensors.reserve(entries.size());
  for (HeaderEntry& entry : entries) {
    CACHALOT_TRY(TensorInfo info, CheckTensor(name, std::move(entry), section, section_bytes));
    tensors.push_back(std::move(info));
  }
  CACHALOT_RETURN_IF_ERROR(CheckCoverage(name, tensors, section, section_bytes));
  return tensors;
}

Status WriteSafetensors(const std::string& path, const std::vector<TensorInfo>& tensors) {
  Json header = Json::object();
  auto& entries = header.get_ref<Json::object_t&>();  // emplace_back: no look-up
  uint64_t at = 0;
  for (const TensorInfo& t : tensors) {
    entries.emplace_back(t.name, Json{{"dtype", std::string(DTypeName(t.dtype))},
                                      {"shape", t.shape},
                                      {"data_offsets", {at, at + t.bytes}}});
    at += t.bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data starts aligned to 8
  const uint64_t length = text.size();
  CACHALOT_TRY(io::AtomicFile file, io::AtomicFile::Create(path));
  CACHALOT_RETURN_IF_ERROR(file.Write(&length, sizeof(length)));
  CACHALOT_RETURN_IF_ERROR(file.Write(text.data(), text.size()));
  for (const TensorInfo& t : tensors) CACHALOT_RETURN_IF_ERROR(file.Write(t.data, t.bytes));
  return file.Commit();
}

}  // namespace cachalot::checkpoint
