// SPDX-License-Identifier: Apache-2.0
#include "cachalot/diskcache/index.h"

#include <sqlite3.h>

#include <cstring>
#include <utility>

#include "cachalot/base/strings.h"

namespace cachalot::diskcache {
namespace {

constexpr int kVersion = 2;                 // 1 had no totals
constexpr int kApplicationId = 0x434B5658;  // "CKVX"

// synchronous=FULL: a commit that has returned survives a power cut.
constexpr const char* kSetup =
    "PRAGMA journal_mode=WAL;"
    "PRAGMA synchronous=FULL;"
    "PRAGMA temp_store=MEMORY;";
constexpr const char* kSchema =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE root(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, identity TEXT NOT NULL,"
    " scope INTEGER NOT NULL);"
    "CREATE TABLE record(key BLOB PRIMARY KEY, parent BLOB NOT NULL, kind INTEGER NOT NULL,"
    " position INTEGER NOT NULL, root INTEGER NOT NULL, segment INTEGER NOT NULL,"
    " offset INTEGER NOT NULL, bytes INTEGER NOT NULL, created INTEGER NOT NULL,"
    " used INTEGER NOT NULL, hits INTEGER NOT NULL, pinned INTEGER NOT NULL) WITHOUT ROWID;"
    "PRAGMA application_id=1129010776;"
    "PRAGMA user_version=1;"
    "COMMIT;";
constexpr const char* kToVersion2 =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE total(name TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;"
    "INSERT INTO total VALUES('record', 0), ('device', 0);"
    "PRAGMA user_version=2;"
    "COMMIT;";
static_assert(kApplicationId == 1129010776);

void BindKey(sqlite3_stmt* statement, int column, const Key& key) {
  sqlite3_bind_blob(statement, column, &key, sizeof(key), SQLITE_TRANSIENT);
}

// Whatever a damaged file holds: a key of another size is a key that nothing has.
Key ReadKey(sqlite3_stmt* statement, int column) {
  Key key;
  const void* data = sqlite3_column_blob(statement, column);
  if (data != nullptr && sqlite3_column_bytes(statement, column) == sizeof(key)) {
    std::memcpy(&key, data, sizeof(key));
  }
  return key;
}

template <typename T>
T ReadInt(sqlite3_stmt* statement, int column) {
  return static_cast<T>(sqlite3_column_int64(statement, column));
}

IndexRow ReadRow(sqlite3_stmt* s) {
  return {.key = ReadKey(s, 0),
          .parent = ReadKey(s, 1),
          .kind = ReadInt<uint8_t>(s, 2) == 2 ? RecordKind::kState : RecordKind::kBlock,
          .position = ReadInt<uint32_t>(s, 3),
          .root = ReadInt<int64_t>(s, 4),
          .segment = ReadInt<uint32_t>(s, 5),
          .offset = ReadInt<uint64_t>(s, 6),
          .bytes = ReadInt<uint32_t>(s, 7),
          .created_ms = ReadInt<int64_t>(s, 8),
          .used_ms = ReadInt<int64_t>(s, 9),
          .hits = ReadInt<uint64_t>(s, 10),
          .pinned = ReadInt<int>(s, 11) != 0};
}

}  // namespace

Error Index::SqlError(std::string_view action) {
  const int code = db_ != nullptr ? sqlite3_errcode(db_) : SQLITE_NOMEM;
  const auto kind_of = [](int primary) {
    switch (primary) {
      case SQLITE_FULL:
        return ErrorCode::kResourceExhausted;
      case SQLITE_CORRUPT:
      case SQLITE_NOTADB:
      case SQLITE_ERROR:  // a table or column is missing: not the database we made
      case SQLITE_SCHEMA:
        return ErrorCode::kDataCorruption;
      case SQLITE_BUSY:
      case SQLITE_LOCKED:
        return ErrorCode::kUnavailable;
      default:
        return ErrorCode::kIo;
    }
  };
  const ErrorCode kind = kind_of(code & 0xFF);
  return {kind, StrCat(path_, ": cannot ", action, ": ",
                       db_ != nullptr ? sqlite3_errmsg(db_) : "no memory")};
}

Result<std::unique_ptr<Index>> Index::Open(Storage& storage, const std::string& name,
                                           bool read_only) {
  std::unique_ptr<Index> index(new Index());
  index->path_ = storage.PathOf(name);
  const int flags = SQLITE_OPEN_READWRITE | (read_only ? 0 : SQLITE_OPEN_CREATE);
  if (sqlite3_open_v2(index->path_.c_str(), &index->db_, flags, storage.sqlite_vfs()) !=
      SQLITE_OK) {
    return index->SqlError("open");
  }
  sqlite3_busy_timeout(index->db_, 2000);
  if (!read_only) CACHALOT_RETURN_IF_ERROR(index->Execute(kSetup));
  CACHALOT_RETURN_IF_ERROR(index->Prepare(read_only));
  return index;
}

Index::~Index() {
  for (sqlite3_stmt* statement : {insert_, delete_, touch_, pin_, total_})
    sqlite3_finalize(statement);
  sqlite3_close(db_);
}

Status Index::Execute(const char* sql) {
  if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return SqlError("use it");
  return {};
}

Status Index::Prepare(bool read_only) {
  sqlite3_stmt* version = nullptr;
  int found = 0;
  if (sqlite3_prepare_v2(db_, "PRAGMA user_version", -1, &version, nullptr) != SQLITE_OK ||
      sqlite3_step(version) != SQLITE_ROW) {
    const Error error = SqlError("read its version");
    sqlite3_finalize(version);
    return error;
  }
  found = sqlite3_column_int(version, 0);
  sqlite3_finalize(version);
  if (found > kVersion) {
    return Error{ErrorCode::kVersionMismatch,
                 StrCat(path_, ": version ", found, ", this program reads ", kVersion,
                        "; give another directory or remove this one")};
  }
  if (found == 0) CACHALOT_RETURN_IF_ERROR(Execute(kSchema));
  if (found < 2 && !read_only) CACHALOT_RETURN_IF_ERROR(Execute(kToVersion2));
  const auto prepare = [this](const char* sql, sqlite3_stmt** statement) {
    return sqlite3_prepare_v2(db_, sql, -1, statement, nullptr) == SQLITE_OK;
  };
  if (!prepare("INSERT OR REPLACE INTO record VALUES(?,?,?,?,?,?,?,?,?,?,?,?)", &insert_) ||
      !prepare("DELETE FROM record WHERE key=?", &delete_) ||
      !prepare("UPDATE record SET used=?, hits=? WHERE key=?", &touch_) ||
      !prepare("UPDATE record SET pinned=? WHERE key=?", &pin_) ||
      (!read_only && !prepare("UPDATE total SET bytes=bytes+? WHERE name=?", &total_))) {
    return SqlError("prepare its statements");
  }
  return {};
}

Result<std::vector<IndexRow>> Index::LoadRows() {
  std::vector<IndexRow> rows;
  sqlite3_stmt* s = nullptr;
  int code = sqlite3_prepare_v2(db_, "SELECT * FROM record", -1, &s, nullptr);
  if (code == SQLITE_OK) {
    while ((code = sqlite3_step(s)) == SQLITE_ROW) rows.push_back(ReadRow(s));
  }
  sqlite3_finalize(s);
  if (code != SQLITE_DONE) return SqlError("read its records");
  return rows;
}

Result<std::vector<IndexRoot>> Index::LoadRoots() {
  std::vector<IndexRoot> roots;
  sqlite3_stmt* s = nullptr;
  int code = sqlite3_prepare_v2(db_, "SELECT id, key, identity, scope FROM root", -1, &s, nullptr);
  if (code == SQLITE_OK) {
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
      const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(s, 2));
      roots.push_back({.id = ReadInt<int64_t>(s, 0),
                       .key = ReadKey(s, 1),
                       .identity = text != nullptr ? text : "",
                       .scope = ReadInt<uint64_t>(s, 3)});
    }
  }
  sqlite3_finalize(s);
  if (code != SQLITE_DONE) return SqlError("read its roots");
  return roots;
}

Result<WriteTotals> Index::LoadTotals() {
  WriteTotals totals;
  sqlite3_stmt* s = nullptr;
  if (sqlite3_prepare_v2(db_, "SELECT name, bytes FROM total", -1, &s, nullptr) != SQLITE_OK) {
    return totals;
  }
  int code = 0;
  while ((code = sqlite3_step(s)) == SQLITE_ROW) {
    const auto* name = reinterpret_cast<const char*>(sqlite3_column_text(s, 0));
    const bool device = name != nullptr && std::string_view(name) == "device";
    (device ? totals.device_bytes : totals.record_bytes) = ReadInt<uint64_t>(s, 1);
  }
  sqlite3_finalize(s);
  if (code != SQLITE_DONE) return SqlError("read its totals");
  return totals;
}

Status Index::Begin() { return Execute("BEGIN IMMEDIATE"); }
Status Index::Commit() {
  const Status status = Execute("COMMIT");
  if (!status.ok()) Rollback();
  return status;
}
void Index::Rollback() {
  if (sqlite3_get_autocommit(db_) == 0) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
}

Status Index::Finish(sqlite3_stmt* statement) {
  const int code = sqlite3_step(statement);
  Status status;
  if (code != SQLITE_DONE) status = SqlError("change it");
  sqlite3_reset(statement);
  return status;
}

Status Index::Insert(const IndexRow& row) {
  BindKey(insert_, 1, row.key);
  BindKey(insert_, 2, row.parent);
  const int64_t values[] = {
      static_cast<int64_t>(row.kind),   row.position,      row.root,       row.segment,
      static_cast<int64_t>(row.offset), row.bytes,         row.created_ms, row.used_ms,
      static_cast<int64_t>(row.hits),   row.pinned ? 1 : 0};
  int column = 3;
  for (const int64_t value : values) sqlite3_bind_int64(insert_, column++, value);
  return Finish(insert_);
}

Status Index::InsertRoot(const IndexRoot& root) {
  sqlite3_stmt* s = nullptr;
  if (sqlite3_prepare_v2(db_, "INSERT INTO root VALUES(?,?,?,?)", -1, &s, nullptr) != SQLITE_OK) {
    return SqlError("add a root");
  }
  sqlite3_bind_int64(s, 1, root.id);
  BindKey(s, 2, root.key);
  sqlite3_bind_text(s, 3, root.identity.data(), static_cast<int>(root.identity.size()),
                    SQLITE_TRANSIENT);
  sqlite3_bind_int64(s, 4, static_cast<int64_t>(root.scope));
  const Status status = Finish(s);
  sqlite3_finalize(s);
  return status;
}

Status Index::Delete(const Key& key) {
  BindKey(delete_, 1, key);
  return Finish(delete_);
}

Status Index::Touch(const Key& key, int64_t used_ms, uint64_t hits) {
  sqlite3_bind_int64(touch_, 1, used_ms);
  sqlite3_bind_int64(touch_, 2, static_cast<int64_t>(hits));
  BindKey(touch_, 3, key);
  return Finish(touch_);
}

Status Index::SetPinned(const Key& key, bool pinned) {
  sqlite3_bind_int64(pin_, 1, pinned ? 1 : 0);
  BindKey(pin_, 2, key);
  return Finish(pin_);
}

Status Index::AddTotals(const WriteTotals& more) {
  const std::pair<const char*, uint64_t> values[] = {{"record", more.record_bytes},
                                                     {"device", more.device_bytes}};
  for (const auto& [name, bytes] : values) {
    sqlite3_bind_int64(total_, 1, static_cast<int64_t>(bytes));
    sqlite3_bind_text(total_, 2, name, -1, SQLITE_STATIC);
    CACHALOT_RETURN_IF_ERROR(Finish(total_));
  }
  return {};
}

uint64_t Index::TakeWrittenBytes() {
  constexpr uint64_t kPageBytes = 4096;       // SQLite's default
  constexpr uint64_t kFrameHeaderBytes = 24;  // in the log
  int pages = 0, highest = 0;
  sqlite3_db_status(db_, SQLITE_DBSTATUS_CACHE_WRITE, &pages, &highest, /*reset=*/1);
  return static_cast<uint64_t>(pages) * (2 * kPageBytes + kFrameHeaderBytes);
}

}  // namespace cachalot::diskcache
