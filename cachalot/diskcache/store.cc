// SPDX-License-Identifier: Apache-2.0
// What a store is asked: finding, queueing, removing. The thread that writes is in store_writer.cc.
#include "cachalot/diskcache/store.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <tuple>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"
#include "cachalot/diskcache/reading.h"
#include "cachalot/diskcache/store_internal.h"

namespace cachalot::diskcache {
namespace {

constexpr const char* kIndexName = "index.db";
// Larger than any state of a model with 1,000 layers; a damaged row must not make us allocate more.
constexpr uint32_t kMaxRecordBytes = 1u << 30;

std::optional<uint32_t> SegmentOf(std::string_view name) {
  if (!name.starts_with("seg-") || !name.ends_with(".kv")) return std::nullopt;
  const std::string_view digits = name.substr(4, name.size() - 7);
  uint32_t id = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), id);
  if (result.ec != std::errc() || result.ptr != digits.data() + digits.size()) return std::nullopt;
  return name == SegmentName(id) ? std::optional(id) : std::nullopt;
}

// An index that is no index is set aside: what is in the segments cannot be found any more.
Result<std::unique_ptr<Index>> OpenIndex(Storage& storage, bool read_only, std::string& note) {
  auto index = Index::Open(storage, kIndexName, read_only);
  const bool broken = !index.ok() && index.error().code == ErrorCode::kDataCorruption;
  if (!broken || read_only) return index;
  note = index.error().message;
  CACHALOT_RETURN_IF_ERROR(storage.Rename(kIndexName, "index.broken"));
  for (const char* suffix : {"-wal", "-shm"}) {
    storage.Remove(StrCat(kIndexName, suffix)).IgnoreError("it may not be there");
  }
  return Index::Open(storage, kIndexName, read_only);
}

}  // namespace

Result<std::unique_ptr<Store>> Store::Open(std::unique_ptr<Storage> storage, StoreOptions options) {
  std::unique_ptr<Store> store(new Store());
  store->storage_ = std::move(storage);
  store->options_ = std::move(options);
  store->stats_.max_bytes = store->options_.max_bytes;
  CACHALOT_RETURN_IF_ERROR(store->Load());
  if (!store->options_.read_only) store->writer_ = std::thread([s = store.get()] { s->Run(); });
  return store;
}

Store::~Store() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (writer_.joinable()) writer_.join();
}

void Store::Log(std::string_view line) const {
  if (options_.log) options_.log(line);
}

Status Store::Load() {
  std::string note;
  CACHALOT_TRY(index_, OpenIndex(*storage_, options_.read_only, note));
  auto rows = index_->LoadRows();
  auto roots = index_->LoadRoots();
  if (!options_.read_only && (!rows.ok() || !roots.ok())) {
    // Damage that opening did not meet.
    const Error error = rows.ok() ? roots.error() : rows.error();
    if (error.code != ErrorCode::kDataCorruption) return error;
    note = error.message;
    index_.reset();
    CACHALOT_RETURN_IF_ERROR(storage_->Rename(kIndexName, "index.broken"));
    for (const char* suffix : {"-wal", "-shm"}) {
      storage_->Remove(StrCat(kIndexName, suffix)).IgnoreError("it may not be there");
    }
    std::string unused;
    CACHALOT_TRY(index_, OpenIndex(*storage_, false, unused));
    rows = std::vector<IndexRow>();
    roots = std::vector<IndexRoot>();
  }
  if (!rows.ok()) return rows.error();
  if (!roots.ok()) return roots.error();
  if (!note.empty()) Log(StrCat("event=kv_disk_index_broken reason=\"", note, "\""));
  for (const IndexRoot& root : *roots) catalog_.AddRoot(root);
  CACHALOT_RETURN_IF_ERROR(OpenSegments(*rows));
  for (IndexRow& row : catalog_.Load(std::move(*rows))) {
    row.punch = false;
    removed_.push_back(row);
  }
  for (const auto& [key, entry] : catalog_.entries()) {
    segments_[entry.row.segment].live_bytes += entry.row.bytes;
  }
  for (const IndexRow& row : removed_) {
    const auto segment = segments_.find(row.segment);
    if (segment != segments_.end()) segment->second.live_bytes += row.bytes;
  }
  return {};
}

// A damaged row may point into another's bytes: then neither is ever punched.
void Store::MarkOverlaps(std::vector<IndexRow>& rows) {
  std::ranges::sort(rows, {}, [](const IndexRow& r) { return std::tuple(r.segment, r.offset); });
  size_t furthest = 0;  // the row that reaches furthest so far
  for (size_t i = 1; i < rows.size(); ++i) {
    const bool same = rows[i].segment == rows[furthest].segment;
    const uint64_t end = rows[furthest].offset + rows[furthest].bytes;
    if (same && rows[i].offset < end) rows[i].punch = rows[furthest].punch = false;
    if (!same || rows[i].offset + rows[i].bytes > end) furthest = i;
  }
}

// Opens the segments, cuts off what was written after the last commit, removes those that hold
// nothing, and drops rows that point beyond a file. The last segment goes on being written to.
Status Store::OpenSegments(std::vector<IndexRow>& rows) {
  std::map<uint32_t, uint64_t> ends;  // segment -> where its last record ends
  std::erase_if(rows, [this](const IndexRow& row) {
    const bool bad = row.bytes < kRecordHeaderBytes || row.bytes > kMaxRecordBytes ||
                     row.offset > UINT64_MAX - row.bytes;
    if (bad) removed_.push_back(row);
    if (bad) removed_.back().punch = false;
    return bad;
  });
  std::map<uint32_t, uint64_t> sizes;
  CACHALOT_TRY(const std::vector<std::string> names, storage_->List());
  for (const std::string& name : names) {
    const auto id = SegmentOf(name);
    if (!id) continue;
    open_segment_ = std::max(open_segment_, *id);
    auto file = storage_->Open(name);
    if (!file.ok()) continue;  // its records are misses
    const auto size = (*file)->Size();
    if (!size.ok()) continue;
    sizes[*id] = *size;
    segments_[*id].file = std::move(*file);
  }
  std::erase_if(rows, [&](const IndexRow& row) {
    const auto size = sizes.find(row.segment);
    const bool gone = size == sizes.end() || row.offset + row.bytes > size->second;
    if (gone) removed_.push_back(row);
    if (gone) removed_.back().punch = false;
    if (!gone) ends[row.segment] = std::max(ends[row.segment], row.offset + row.bytes);
    return gone;
  });
  MarkOverlaps(rows);
  if (options_.read_only) return {};
  for (auto it = segments_.begin(); it != segments_.end();) {
    const uint32_t id = it->first;
    if (!ends.contains(id)) {
      storage_->Remove(SegmentName(id)).IgnoreError("tried again at the next start");
      it = segments_.erase(it);
      continue;
    }
    const bool last = id == open_segment_ && ends[id] < options_.segment_bytes;
    if (last && it->second.file->Truncate(ends[id]).ok()) {
      open_file_ = it->second.file;
      open_offset_ = ends[id];
    }
    ++it;
  }
  return {};
}

Key Store::Root(std::string_view identity, uint64_t scope) {
  const Key key = RootKey(identity, scope);
  const std::lock_guard lock(mutex_);
  if (catalog_.FindRoot(key) == nullptr && !options_.read_only) {
    IndexRoot root{.id = catalog_.next_root_id(),
                   .key = key,
                   .identity = std::string(identity),
                   .scope = scope};
    catalog_.AddRoot(root);
    new_roots_.push_back(std::move(root));
  }
  return key;
}

StoredPath Store::Find(const Key& root, std::span<const uint32_t> tokens) const {
  StoredPath path;
  const std::lock_guard lock(mutex_);
  // A key found by hash is believed only with its parent's key and place; its ids are compared when
  // the record is read.
  const auto consider_states = [&](const Key& node, size_t begin) {
    for (const Key& key : catalog_.ChildrenOf(node)) {
      const IndexRow& row = catalog_.Find(key)->row;
      const size_t position = row.position;
      if (row.kind != RecordKind::kState || position < begin || position > tokens.size() ||
          position - begin >= kBlockTokens || position == 0) {
        continue;
      }
      if (path.state && path.state->position >= position) continue;
      const RecordName name{.kind = RecordKind::kState,
                            .parent = node,
                            .position = row.position,
                            .ids = tokens.subspan(begin, position - begin)};
      if (KeyOf(name) == key) path.state = row;
    }
  };
  Key node = root;
  consider_states(node, 0);
  for (size_t end = kBlockTokens; end <= tokens.size(); end += kBlockTokens) {
    const RecordName name{.kind = RecordKind::kBlock,
                          .parent = node,
                          .position = static_cast<uint32_t>(end),
                          .ids = tokens.subspan(end - kBlockTokens, kBlockTokens)};
    const Catalog::Entry* entry = catalog_.Find(KeyOf(name));
    if (entry == nullptr || entry->row.kind != RecordKind::kBlock ||
        entry->row.position != name.position || !(entry->row.parent == node)) {
      break;
    }
    path.blocks.push_back(entry->row);
    node = entry->row.key;
    consider_states(node, end);
  }
  return path;
}

bool Store::Contains(const Key& key) const {
  const std::lock_guard lock(mutex_);
  return catalog_.Find(key) != nullptr || pending_.contains(key);
}

// The root on which `parent` stands. Pre: the lock is held; `parent` is known.
int64_t Store::RootOf(const Key& parent) const {
  if (const IndexRoot* root = catalog_.FindRoot(parent)) return root->id;
  const auto pending = pending_.find(parent);
  return pending != pending_.end() ? pending->second : catalog_.Find(parent)->row.root;
}

bool Store::Put(const RecordName& name, std::vector<uint8_t> payload) {
  CACHALOT_CHECK(name.kind == RecordKind::kBlock ? name.ids.size() == kBlockTokens
                                                 : name.ids.size() < kBlockTokens);
  const Key key = KeyOf(name);
  {
    const std::lock_guard lock(mutex_);
    if (catalog_.Find(key) != nullptr || pending_.contains(key)) return true;
    const size_t bytes = RecordBytes(name.ids.size(), payload.size());
    const bool known = catalog_.FindRoot(name.parent) != nullptr ||
                       catalog_.Find(name.parent) != nullptr || pending_.contains(name.parent);
    if (!known || options_.read_only || stopping_ || bytes > kMaxRecordBytes ||
        stats_.queued_bytes + bytes > options_.queue_bytes || UnixMs() < paused_until_ms_) {
      ++stats_.dropped;
      return false;
    }
    const int64_t root = RootOf(name.parent);
    pending_.emplace(key, root);
    queue_.push_back({.kind = name.kind,
                      .key = key,
                      .parent = name.parent,
                      .root = root,
                      .position = name.position,
                      .ids = {name.ids.begin(), name.ids.end()},
                      .payload = std::move(payload)});
    stats_.queued_bytes += bytes;
    ++accepted_;
  }
  wake_.notify_one();
  return true;
}

Status Store::Flush() {
  std::unique_lock lock(mutex_);
  if (options_.read_only) return {};
  ++flushing_;
  wake_.notify_one();
  const uint64_t target = accepted_;
  done_.wait(lock, [&] {
    return finished_ >= target && removed_.empty() && touched_.empty() && new_roots_.empty();
  });
  --flushing_;
  if (!write_error_) return {};
  return *std::exchange(write_error_, std::nullopt);
}

Result<std::unique_ptr<Reading>> Store::Read(std::vector<FoundRecord> records,
                                             std::vector<uint32_t> tokens, Sink sink) {
  {
    const std::lock_guard lock(mutex_);
    // The deepest is enough: a use of it is one of all it stands on.
    const int64_t now = UnixMs();
    if (!records.empty()) {
      const auto last = std::ranges::max_element(
          records, {}, [](const FoundRecord& r) { return std::pair(r.position, r.kind); });
      catalog_.Touch(last->key, now);
      for (const FoundRecord& record : records) {
        if (!options_.read_only && catalog_.Find(record.key) != nullptr)
          touched_.insert(record.key);
      }
    }
  }
  std::unique_ptr<Reading> reading(
      new Reading(*this, std::move(records), std::move(tokens), std::move(sink)));
  CACHALOT_RETURN_IF_ERROR(reading->Prepare());
  return reading;
}

std::shared_ptr<StorageFile> Store::FileOf(uint32_t segment) const {
  const std::lock_guard lock(mutex_);
  const auto found = segments_.find(segment);
  return found == segments_.end() ? nullptr : found->second.file;
}

Result<std::vector<uint8_t>> Store::ReadBytes(const IndexRow& row) {
  const auto file = FileOf(row.segment);
  if (file == nullptr) {
    return Error{ErrorCode::kNotFound, StrCat(SegmentName(row.segment), " is gone")};
  }
  const uint64_t begin = row.offset / kDirectAlignment * kDirectAlignment;
  const size_t lead = row.offset - begin;
  const size_t bytes =
      (lead + row.bytes + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
  const std::unique_ptr<uint8_t, void (*)(void*)> buffer(
      static_cast<uint8_t*>(std::aligned_alloc(kDirectAlignment, bytes)), std::free);
  if (buffer == nullptr) return Error{ErrorCode::kResourceExhausted, "no memory for a record"};
  CACHALOT_TRY(const auto queue, storage_->NewReadQueue(1));
  CACHALOT_RETURN_IF_ERROR(queue->Submit(*file, begin, {buffer.get(), bytes}, 0));
  CACHALOT_TRY(const ReadQueue::Done done, queue->Next(true));
  if (done.bytes < 0) {
    return Error{ErrorCode::kIo, std::strerror(static_cast<int>(-done.bytes))};
  }
  if (static_cast<uint64_t>(done.bytes) < lead + row.bytes) {
    return Error{ErrorCode::kDataCorruption, "the segment ends before the record does"};
  }
  return std::vector<uint8_t>(buffer.get() + lead, buffer.get() + lead + row.bytes);
}

void Store::Failed(const Key& key, const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    ++stats_.corrupt;
  }
  Log(StrCat("event=kv_disk_miss reason=\"", error.message, "\""));
  Forget(key);
}

void Store::Forget(const Key& key) {
  {
    const std::lock_guard lock(mutex_);
    const std::vector<IndexRow> rows = catalog_.RemoveSubtree(key);
    if (options_.read_only) return;
    removed_.insert(removed_.end(), rows.begin(), rows.end());
  }
  wake_.notify_one();
}

void Store::Purge(const Key& root) {
  std::vector<Key> children;
  {
    std::unique_lock lock(mutex_);
    const IndexRoot* found = catalog_.FindRoot(root);
    if (found == nullptr) return;
    const int64_t id = found->id;
    std::erase_if(queue_, [&](const Item& item) {
      if (item.root != id) return false;
      stats_.queued_bytes -= RecordBytes(item.ids.size(), item.payload.size());
      pending_.erase(item.key);
      ++finished_;
      return true;
    });
    // What is being written just now belongs to it too.
    done_.wait(lock, [this] { return !writing_; });
    const auto all = catalog_.ChildrenOf(root);
    children.assign(all.begin(), all.end());
  }
  for (const Key& child : children) Forget(child);
}

Status Store::SetPinned(const Key& key, bool pinned) {
  {
    const std::lock_guard lock(mutex_);
    if (catalog_.Find(key) == nullptr) return Error{ErrorCode::kNotFound, "no such record"};
    catalog_.SetPinned(key, pinned);
  }
  const std::lock_guard lock(index_mutex_);
  CACHALOT_RETURN_IF_ERROR(index_->Begin());
  if (const Status status = index_->SetPinned(key, pinned); !status.ok()) {
    index_->Rollback();
    return status;
  }
  return index_->Commit();
}

StoreStats Store::stats() const {
  const std::lock_guard lock(mutex_);
  StoreStats stats = stats_;
  stats.bytes = catalog_.bytes();
  stats.states = catalog_.num_states();
  stats.blocks = catalog_.size() - stats.states;
  return stats;
}

std::vector<IndexRoot> Store::Roots() const {
  const std::lock_guard lock(mutex_);
  std::vector<IndexRoot> roots;
  for (const auto& [key, root] : catalog_.roots()) roots.push_back(root);
  return roots;
}

Result<WriteTotals> Store::Totals() const {
  const std::lock_guard lock(index_mutex_);
  return index_->LoadTotals();
}

std::vector<IndexRow> Store::Rows() const {
  const std::lock_guard lock(mutex_);
  std::vector<IndexRow> rows;
  for (const auto& [key, entry] : catalog_.entries()) rows.push_back(entry.row);
  return rows;
}

}  // namespace cachalot::diskcache
