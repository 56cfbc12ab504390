// SPDX-License-Identifier: Apache-2.0
#include "cachalot/diskcache/archive.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>

#include "cachalot/base/strings.h"
#include "cachalot/io/atomic_file.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::diskcache {
namespace {

constexpr char kMagic[8] = {'C', 'K', 'V', 'E', 'X', 'P', '0', '1'};
constexpr uint32_t kMaxIdentity = 1u << 16;
constexpr uint8_t kRootTag = 0;
constexpr uint8_t kRecordTag = 1;

// Takes a number off the front; false if there are not so many bytes.
template <typename T>
bool TakeNumber(std::span<const uint8_t>& from, T& value) {
  if (from.size() < sizeof(T)) return false;
  std::memcpy(&value, from.data(), sizeof(T));
  from = from.subspan(sizeof(T));
  return true;
}

Error Corrupt(const std::string& path, uint64_t offset, std::string_view what) {
  return {ErrorCode::kDataCorruption, StrCat(path, ": at byte ", offset, ": ", what)};
}

Status CheckAgainstRow(const ParsedRecord& record, const IndexRow& row) {
  if (record.key == row.key && record.parent == row.parent && record.kind == row.kind &&
      record.position == row.position) {
    return {};
  }
  return Error{ErrorCode::kDataCorruption, "another record is where the index says it is"};
}

Status WriteRoot(io::AtomicFile& file, const IndexRoot& root) {
  const auto length = static_cast<uint32_t>(root.identity.size());
  CACHALOT_RETURN_IF_ERROR(file.Write(&kRootTag, 1));
  CACHALOT_RETURN_IF_ERROR(file.Write(&root.scope, sizeof(root.scope)));
  CACHALOT_RETURN_IF_ERROR(file.Write(&length, sizeof(length)));
  return file.Write(root.identity.data(), length);
}

}  // namespace

Status VerifyRecord(Store& store, const IndexRow& row) {
  CACHALOT_TRY(const std::vector<uint8_t> bytes, store.ReadBytes(row));
  CACHALOT_TRY(const ParsedRecord record, ParseRecord(bytes));
  return CheckAgainstRow(record, row);
}

Result<uint64_t> ExportRecords(Store& store, const std::string& path) {
  CACHALOT_TRY(io::AtomicFile file, io::AtomicFile::Create(path));
  CACHALOT_RETURN_IF_ERROR(file.Write(kMagic, sizeof(kMagic)));
  for (const IndexRoot& root : store.Roots()) CACHALOT_RETURN_IF_ERROR(WriteRoot(file, root));
  std::vector<IndexRow> rows = store.Rows();
  std::ranges::sort(rows, {}, [](const IndexRow& r) { return std::tuple(r.position, r.kind); });
  uint64_t count = 0;
  for (const IndexRow& row : rows) {
    const auto bytes = store.ReadBytes(row);
    if (!bytes.ok()) continue;
    const auto record = ParseRecord(*bytes);
    if (!record.ok() || !CheckAgainstRow(*record, row).ok()) continue;
    const auto length = static_cast<uint32_t>(bytes->size());
    CACHALOT_RETURN_IF_ERROR(file.Write(&kRecordTag, 1));
    CACHALOT_RETURN_IF_ERROR(file.Write(&length, sizeof(length)));
    CACHALOT_RETURN_IF_ERROR(file.Write(bytes->data(), length));
    ++count;
  }
  CACHALOT_RETURN_IF_ERROR(file.Commit());
  return count;
}

Result<uint64_t> ImportRecords(Store& store, const std::string& path) {
  CACHALOT_TRY(const io::MappedFile file, io::MappedFile::Open(path));
  std::span<const uint8_t> left(file.data(), file.size());
  if (left.size() < sizeof(kMagic) || std::memcmp(left.data(), kMagic, sizeof(kMagic)) != 0) {
    return Corrupt(path, 0, "not a file of `cachalot cache export`");
  }
  left = left.subspan(sizeof(kMagic));
  uint64_t count = 0;
  while (!left.empty()) {
    const uint64_t at = file.size() - left.size();
    uint8_t tag = 0;
    uint64_t scope = 0;
    uint32_t length = 0;
    TakeNumber(left, tag);
    const bool numbers = (tag != kRootTag || TakeNumber(left, scope)) && TakeNumber(left, length);
    if (tag > kRecordTag || !numbers || length > left.size() ||
        (tag == kRootTag && length > kMaxIdentity)) {
      return Corrupt(path, at, "the file ends inside a record, or is damaged");
    }
    const auto bytes = left.first(length);
    left = left.subspan(length);
    if (tag == kRootTag) {
      store.Root({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, scope);
      continue;
    }
    const auto record = ParseRecord(bytes);
    if (!record.ok()) return Corrupt(path, at, record.error().message);
    // Faster than the disk: wait for it. A record whose parent was evicted is left out.
    const std::vector<uint8_t> payload(record->payload.begin(), record->payload.end());
    bool taken = store.Put(record->name(), payload);
    if (!taken) {
      CACHALOT_RETURN_IF_ERROR(store.Flush());
      taken = store.Put(record->name(), payload);
    }
    if (taken) ++count;
  }
  CACHALOT_RETURN_IF_ERROR(store.Flush());
  return count;
}

}  // namespace cachalot::diskcache
