// SPDX-License-Identifier: Apache-2.0
// For tests: a disk in memory under segments and SQLite alike. Writes that were not synced are kept
// apart; a power cut at a chosen operation keeps, loses or tears each of them.
#pragma once

#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/diskcache/storage.h"

namespace cachalot::diskcache {

// The platter. Outlives stores; survives power cuts. Thread-safe.
class MemoryDisk {
 public:
  static constexpr size_t kSector = 512;  // what a disk writes whole or not at all

  struct Change {
    bool truncate = false;
    uint64_t offset = 0;  // or the new size
    std::vector<uint8_t> bytes;
  };
  struct File {
    std::vector<uint8_t> durable;  // what a power cut leaves for certain
    std::vector<uint8_t> current;  // what the program sees
    std::vector<Change> unsynced;  // in order, between the two
    bool named = false;            // its directory entry was synced
    bool removed = false;          // and its removal was not
    std::vector<std::shared_ptr<std::array<uint8_t, 32768>>> shared;  // SQLite's shm, in memory
  };

  std::mutex mutex;
  std::map<std::string, std::shared_ptr<File>> files;
  uint64_t operations = 0;              // that change something
  uint64_t cut_at = UINT64_MAX;         // the power goes off at this one
  uint64_t capacity = UINT64_MAX;       // bytes of all files; more is ENOSPC
  uint64_t fail_reads_at = UINT64_MAX;  // every n-th read fails
  uint64_t reads = 0;
  bool fail_writes = false;

  bool off() const { return operations >= cut_at; }

  // False with the power off: nothing happens any more. Pre: locked.
  bool Operate() { return !off() && ++operations < cut_at; }

  uint64_t Used() {
    uint64_t bytes = 0;
    for (const auto& [name, file] : files) bytes += file->current.size();
    return bytes;
  }

  static void Apply(const Change& change, size_t length, std::vector<uint8_t>& to) {
    if (change.truncate) {
      to.resize(change.offset);
      return;
    }
    to.resize(std::max<size_t>(to.size(), change.offset + length));
    std::copy_n(change.bytes.begin(), length, to.begin() + static_cast<ptrdiff_t>(change.offset));
  }

  bool Write(File& file, uint64_t offset, std::span<const uint8_t> bytes) {
    Change change{.offset = offset, .bytes = {bytes.begin(), bytes.end()}};
    Apply(change, bytes.size(), file.current);
    file.unsynced.push_back(std::move(change));
    return true;
  }

  void Sync(File& file) {
    file.durable = file.current;
    file.unsynced.clear();
  }

  // What is there when the power comes back. Each unsynced write is kept, lost, or torn: some of
  // its sectors were written.
  void Restart(uint64_t seed) {
    const std::lock_guard lock(mutex);
    uint64_t draw = 0;
    const auto random = [&](uint64_t n) { return CounterRandom(seed, 7, draw++) % n; };
    for (auto it = files.begin(); it != files.end();) {
      File& file = *it->second;
      if ((!file.named && random(2) == 0) || (file.removed && random(2) == 0)) {
        it = files.erase(it);
        continue;
      }
      std::vector<uint8_t> left = file.durable;
      for (const Change& change : file.unsynced) {
        const uint64_t fate = random(3);
        if (fate == 0) continue;
        if (fate == 1 || change.truncate) {
          Apply(change, change.bytes.size(), left);
          continue;
        }
        for (size_t at = 0; at < change.bytes.size(); at += kSector) {
          if (random(2) == 0) continue;
          const size_t n = std::min(kSector, change.bytes.size() - at);
          Change sector{.offset = change.offset + at,
                        .bytes = {change.bytes.begin() + static_cast<ptrdiff_t>(at),
                                  change.bytes.begin() + static_cast<ptrdiff_t>(at + n)}};
          Apply(sector, n, left);
        }
      }
      auto fresh = std::make_shared<File>();
      fresh->durable = fresh->current = std::move(left);
      fresh->named = true;
      it->second = std::move(fresh);
      ++it;
    }
    operations = 0;
    cut_at = UINT64_MAX;
  }
};

class MemoryFile final : public StorageFile {
 public:
  MemoryFile(MemoryDisk& disk, std::shared_ptr<MemoryDisk::File> file)
      : disk_(disk), file_(std::move(file)) {}

  Status Write(uint64_t offset, std::span<const uint8_t> bytes) override {
    const std::lock_guard lock(disk_.mutex);
    if (!disk_.Operate() || disk_.fail_writes) return Off();
    if (disk_.Used() + bytes.size() > disk_.capacity) {
      disk_.Write(*file_, offset, bytes.first(bytes.size() / 2));
      return Error{ErrorCode::kResourceExhausted, "disk full"};
    }
    disk_.Write(*file_, offset, bytes);
    return {};
  }
  Status Sync() override {
    const std::lock_guard lock(disk_.mutex);
    if (!disk_.Operate()) return Off();
    disk_.Sync(*file_);
    return {};
  }
  Status Truncate(uint64_t size) override {
    const std::lock_guard lock(disk_.mutex);
    if (!disk_.Operate()) return Off();
    file_->current.resize(size);
    file_->unsynced.push_back({.truncate = true, .offset = size, .bytes = {}});
    return {};
  }
  // Not ordered with anything: the worst a file system may do is to do it at once and for good.
  void Punch(uint64_t offset, uint64_t bytes) override {
    const std::lock_guard lock(disk_.mutex);
    if (!disk_.Operate()) return;
    for (std::vector<uint8_t>* data : {&file_->current, &file_->durable}) {
      const uint64_t end = std::min<uint64_t>(offset + bytes, data->size());
      for (uint64_t i = offset; i < end; ++i) (*data)[i] = 0;
    }
  }
  Result<uint64_t> Size() override {
    const std::lock_guard lock(disk_.mutex);
    return static_cast<uint64_t>(file_->current.size());
  }
  int64_t Read(uint64_t offset, std::span<uint8_t> to) {
    const std::lock_guard lock(disk_.mutex);
    if (++disk_.reads % disk_.fail_reads_at == 0) return -EIO;
    const auto& data = file_->current;
    if (offset >= data.size()) return 0;
    const size_t n = std::min<size_t>(to.size(), data.size() - offset);
    std::memcpy(to.data(), data.data() + offset, n);
    return static_cast<int64_t>(n);
  }

 private:
  static Error Off() { return {ErrorCode::kIo, "power is off"}; }
  MemoryDisk& disk_;
  std::shared_ptr<MemoryDisk::File> file_;
};

class MemoryQueue final : public ReadQueue {
 public:
  Status Submit(StorageFile& file, uint64_t offset, std::span<uint8_t> buffer,
                uint64_t tag) override {
    done_.push_back({.tag = tag, .bytes = static_cast<MemoryFile&>(file).Read(offset, buffer)});
    return {};
  }
  Result<Done> Next(bool) override {
    if (done_.empty()) return Done{.tag = kNothing};
    const Done done = done_.front();
    done_.pop_front();
    return done;
  }

 private:
  std::deque<Done> done_;
};

// SQLite's way to the same disk. One per test process; files are found by "disk address/name".
class MemoryVfs {
 public:
  static const char* Name() {
    static const bool registered = [] {
      static sqlite3_vfs vfs{};
      vfs.iVersion = 1;
      vfs.szOsFile = sizeof(Handle);
      vfs.mxPathname = 256;
      vfs.zName = "cachalot-memory";
      vfs.xOpen = Open;
      vfs.xDelete = Delete;
      vfs.xAccess = Access;
      vfs.xFullPathname = [](sqlite3_vfs*, const char* name, int n, char* out) {
        sqlite3_snprintf(n, out, "%s", name);
        return SQLITE_OK;
      };
      vfs.xRandomness = [](sqlite3_vfs*, int n, char* out) {
        std::memset(out, 42, static_cast<size_t>(n));
        return n;
      };
      vfs.xSleep = [](sqlite3_vfs*, int us) { return us; };
      vfs.xCurrentTime = [](sqlite3_vfs*, double* out) {
        *out = 2460000.5;
        return SQLITE_OK;
      };
      return sqlite3_vfs_register(&vfs, 0) == SQLITE_OK;
    }();
    return registered ? "cachalot-memory" : nullptr;
  }

  static std::string Path(MemoryDisk& disk, const std::string& name) {
    return StrCat("/", reinterpret_cast<uintptr_t>(&disk), "/", name);
  }

 private:
  struct Handle {
    sqlite3_file base;
    MemoryDisk* disk;
    std::shared_ptr<MemoryDisk::File>* file;
  };

  static std::pair<MemoryDisk*, std::string> Split(const char* path) {
    const std::string text(path);
    const size_t slash = text.find('/', 1);
    return {reinterpret_cast<MemoryDisk*>(std::stoull(text.substr(1, slash - 1))),
            text.substr(slash + 1)};
  }
  static Handle& Of(sqlite3_file* file) { return *reinterpret_cast<Handle*>(file); }

  static int Open(sqlite3_vfs*, const char* path, sqlite3_file* out, int flags, int* out_flags) {
    Handle& handle = Of(out);
    handle.base.pMethods = nullptr;
    if (path == nullptr) return SQLITE_CANTOPEN;  // temporary files: temp_store is memory
    const auto [disk, name] = Split(path);
    const std::lock_guard lock(disk->mutex);
    auto found = disk->files.find(name);
    if (found == disk->files.end() || found->second->removed) {
      if ((flags & SQLITE_OPEN_CREATE) == 0) return SQLITE_CANTOPEN;
      if (!disk->Operate()) return SQLITE_IOERR;
      found = disk->files.insert_or_assign(name, std::make_shared<MemoryDisk::File>()).first;
    }
    handle.disk = disk;
    handle.file = new std::shared_ptr<MemoryDisk::File>(found->second);
    handle.base.pMethods = Methods();
    if (out_flags != nullptr) *out_flags = flags;
    return SQLITE_OK;
  }
  static int Delete(sqlite3_vfs*, const char* path, int) {
    const auto [disk, name] = Split(path);
    const std::lock_guard lock(disk->mutex);
    if (!disk->Operate()) return SQLITE_IOERR;
    disk->files.erase(name);
    return SQLITE_OK;
  }
  static int Access(sqlite3_vfs*, const char* path, int, int* result) {
    const auto [disk, name] = Split(path);
    const std::lock_guard lock(disk->mutex);
    *result = disk->files.contains(name) ? 1 : 0;
    return SQLITE_OK;
  }

  static const sqlite3_io_methods* Methods() {
    static const sqlite3_io_methods methods = [] {
      sqlite3_io_methods m{};
      m.iVersion = 2;
      m.xClose = [](sqlite3_file* f) {
        delete Of(f).file;
        return SQLITE_OK;
      };
      m.xRead = [](sqlite3_file* f, void* to, int n, sqlite3_int64 offset) {
        Handle& h = Of(f);
        const std::lock_guard lock(h.disk->mutex);
        const auto& data = (*h.file)->current;
        const auto at = static_cast<size_t>(offset);
        const size_t have =
            at < data.size() ? std::min<size_t>(data.size() - at, static_cast<size_t>(n)) : 0;
        std::memset(to, 0, static_cast<size_t>(n));
        if (have > 0) std::memcpy(to, data.data() + at, have);  // data() of nothing is null
        return have == static_cast<size_t>(n) ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
      };
      m.xWrite = [](sqlite3_file* f, const void* from, int n, sqlite3_int64 offset) {
        Handle& h = Of(f);
        const std::lock_guard lock(h.disk->mutex);
        if (!h.disk->Operate() || h.disk->fail_writes) return SQLITE_IOERR_WRITE;
        if (h.disk->Used() + static_cast<size_t>(n) > h.disk->capacity) return SQLITE_FULL;
        h.disk->Write(**h.file, static_cast<uint64_t>(offset),
                      {static_cast<const uint8_t*>(from), static_cast<size_t>(n)});
        return SQLITE_OK;
      };
      m.xTruncate = [](sqlite3_file* f, sqlite3_int64 size) {
        Handle& h = Of(f);
        const std::lock_guard lock(h.disk->mutex);
        if (!h.disk->Operate()) return SQLITE_IOERR_TRUNCATE;
        (*h.file)->current.resize(static_cast<size_t>(size));
        (*h.file)->unsynced.push_back(
            {.truncate = true, .offset = static_cast<uint64_t>(size), .bytes = {}});
        return SQLITE_OK;
      };
      m.xSync = [](sqlite3_file* f, int) {
        Handle& h = Of(f);
        const std::lock_guard lock(h.disk->mutex);
        if (!h.disk->Operate()) return SQLITE_IOERR_FSYNC;
        h.disk->Sync(**h.file);
        (*h.file)->named = true;  // SQLite's own VFS syncs the directory of a new file here
        return SQLITE_OK;
      };
      m.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) {
        Handle& h = Of(f);
        const std::lock_guard lock(h.disk->mutex);
        *size = static_cast<sqlite3_int64>((*h.file)->current.size());
        return SQLITE_OK;
      };
      m.xLock = [](sqlite3_file*, int) { return SQLITE_OK; };
      m.xUnlock = [](sqlite3_file*, int) { return SQLITE_OK; };
      m.xCheckReservedLock = [](sqlite3_file*, int* result) {
        *result = 0;
        return SQLITE_OK;
      };
      m.xFileControl = [](sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; };
      m.xSectorSize = [](sqlite3_file*) { return static_cast<int>(MemoryDisk::kSector); };
      m.xDeviceCharacteristics = [](sqlite3_file*) { return 0; };
      m.xShmMap = [](sqlite3_file* f, int page, int size, int, void volatile** out) {
        Handle& h = Of(f);
        const std::lock_guard lock(h.disk->mutex);
        auto& shared = (*h.file)->shared;
        while (shared.size() <= static_cast<size_t>(page)) {
          shared.push_back(std::make_shared<std::array<uint8_t, 32768>>());
          shared.back()->fill(0);
        }
        *out = shared[static_cast<size_t>(page)]->data();
        return size == 32768 ? SQLITE_OK : SQLITE_IOERR;
      };
      m.xShmLock = [](sqlite3_file*, int, int, int) { return SQLITE_OK; };
      m.xShmBarrier = [](sqlite3_file*) {};
      m.xShmUnmap = [](sqlite3_file* f, int remove) {
        Handle& h = Of(f);
        const std::lock_guard lock(h.disk->mutex);
        if (remove != 0) (*h.file)->shared.clear();
        return SQLITE_OK;
      };
      return m;
    }();
    return &methods;
  }
};

class MemoryStorage final : public Storage {
 public:
  explicit MemoryStorage(MemoryDisk& disk) : disk_(disk) {}

  Result<std::unique_ptr<StorageFile>> Create(const std::string& name) override {
    const std::lock_guard lock(disk_.mutex);
    if (!disk_.Operate() || disk_.files.contains(name)) {
      return Error{ErrorCode::kIo, StrCat(name, ": cannot create")};
    }
    disk_.files[name] = std::make_shared<MemoryDisk::File>();
    return std::unique_ptr<StorageFile>(new MemoryFile(disk_, disk_.files[name]));
  }
  Result<std::unique_ptr<StorageFile>> Open(const std::string& name) override {
    const std::lock_guard lock(disk_.mutex);
    const auto found = disk_.files.find(name);
    if (found == disk_.files.end() || found->second->removed) {
      return Error{ErrorCode::kNotFound, StrCat(name, ": no such file")};
    }
    return std::unique_ptr<StorageFile>(new MemoryFile(disk_, found->second));
  }
  Status SyncDirectory() override {
    const std::lock_guard lock(disk_.mutex);
    if (!disk_.Operate()) return Error{ErrorCode::kIo, "power is off"};
    for (auto it = disk_.files.begin(); it != disk_.files.end();) {
      it->second->named = true;
      it = it->second->removed ? disk_.files.erase(it) : std::next(it);
    }
    return {};
  }
  Status Remove(const std::string& name) override {
    const std::lock_guard lock(disk_.mutex);
    const auto found = disk_.files.find(name);
    if (found == disk_.files.end() || !disk_.Operate()) {
      return Error{ErrorCode::kNotFound, StrCat(name, ": cannot remove")};
    }
    found->second->removed = true;
    return {};
  }
  Status Rename(const std::string& from, const std::string& to) override {
    const std::lock_guard lock(disk_.mutex);
    if (!disk_.Operate() || !disk_.files.contains(from)) return Error{ErrorCode::kIo, "rename"};
    disk_.files[to] = disk_.files[from];
    disk_.files.erase(from);
    return {};
  }
  Result<std::vector<std::string>> List() override {
    const std::lock_guard lock(disk_.mutex);
    std::vector<std::string> names;
    for (const auto& [name, file] : disk_.files) {
      if (!file->removed) names.push_back(name);
    }
    return names;
  }
  Result<std::unique_ptr<ReadQueue>> NewReadQueue(uint32_t) override {
    return std::unique_ptr<ReadQueue>(new MemoryQueue());
  }
  std::string PathOf(const std::string& name) const override {
    return MemoryVfs::Path(disk_, name);
  }
  const char* sqlite_vfs() const override { return MemoryVfs::Name(); }

 private:
  MemoryDisk& disk_;
};

}  // namespace cachalot::diskcache
