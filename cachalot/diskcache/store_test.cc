// SPDX-License-Identifier: Apache-2.0
// The store on a real directory: what is put is found again, by others and later; what is damaged
// is a miss; the budget holds.
#include "cachalot/diskcache/store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cachalot/base/strings.h"
#include "cachalot/base/temp_dir.h"
#include "cachalot/diskcache/store_test_support.h"

namespace cachalot::diskcache {
namespace {

namespace fs = std::filesystem;

class StoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<Store> Open(StoreOptions options = {}) {
    auto storage = OpenDirectory(dir_, !options.read_only);
    EXPECT_TRUE(storage.ok()) << storage.error().message;
    if (!storage.ok()) return nullptr;
    return OpenStore(std::move(*storage), std::move(options));
  }
  std::vector<fs::path> Segments() const {
    std::vector<fs::path> out;
    for (const auto& entry : fs::directory_iterator(dir_)) {
      if (entry.path().extension() == ".kv") out.push_back(entry.path());
    }
    return out;
  }
  void Flip(const fs::path& path, uint64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get() ^ 4);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }

  const TempDir temp_;
  const std::string dir_ = temp_.path();
};

TEST_F(StoreTest, APrefixOutlivesTheStore) {
  const Tokens text = Text(1, 0, 0, 1000);
  {
    const auto store = Open();
    const Key root = store->Root("model", 1);
    EXPECT_EQ(PutText(*store, root, text).size(), 8u);
    ASSERT_TRUE(store->Flush().ok());
    const ReadBack read = ReadText(*store, root, text);
    EXPECT_EQ(read.path.blocks.size(), 7u);
    ASSERT_TRUE(read.path.state.has_value());
    EXPECT_EQ(read.path.state->position, 1000u);
    EXPECT_FALSE(read.failed || read.wrong);
  }
  const auto store = Open();
  Tokens longer = text;
  longer.resize(1100, 7);
  ReadBack read = ReadText(*store, store->Root("model", 1), longer);
  EXPECT_EQ(read.path.blocks.size(), 7u);
  EXPECT_EQ(read.path.state->position, 1000u);
  EXPECT_FALSE(read.failed || read.wrong);
  // One token short of the state: the blocks only.
  read = ReadText(*store, store->Root("model", 1), {text.begin(), text.end() - 1});
  EXPECT_EQ(read.path.blocks.size(), 7u);
  EXPECT_FALSE(read.path.state.has_value());
  // Another scope, another model: nothing.
  EXPECT_TRUE(store->Find(store->Root("model", 2), text).blocks.empty());
  EXPECT_TRUE(store->Find(store->Root("other", 1), text).blocks.empty());
}

TEST_F(StoreTest, WhatWasWrittenIsCounted) {
  uint64_t records = 0;
  for (uint64_t run = 1; run <= 2; ++run) {  // over restarts
    const auto store = Open();
    PutText(*store, store->Root("model", 1), Text(run, 0, 0, 1000));
    ASSERT_TRUE(store->Flush().ok());
    records += store->stats().written_bytes;
    const auto totals = store->Totals();
    ASSERT_TRUE(totals.ok());
    EXPECT_EQ(totals->record_bytes, records);
    EXPECT_GE(totals->device_bytes, records);
  }
  const auto totals = Open({.read_only = true})->Totals();
  ASSERT_TRUE(totals.ok());
  EXPECT_EQ(totals->record_bytes, records);
}

TEST_F(StoreTest, AnIndexWithoutTotalsIsBroughtUpToDate) {
  const Tokens text = Text(1, 0, 0, 1000);
  {
    const auto store = Open();
    PutText(*store, store->Root("model", 1), text);
  }
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((dir_ + "/index.db").c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, "DROP TABLE total; PRAGMA user_version=1", nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(db);
  {
    const auto looking = Open({.read_only = true});
    EXPECT_EQ(looking->Totals()->record_bytes, 0u);
    EXPECT_EQ(looking->Rows().size(), 8u);
  }
  const auto store = Open();
  EXPECT_EQ(store->Find(store->Root("model", 1), text).blocks.size(), 7u);
  PutText(*store, store->Root("model", 1), Text(2, 0, 0, 1000));
  ASSERT_TRUE(store->Flush().ok());
  EXPECT_GT(store->Totals()->record_bytes, 0u);
}

TEST_F(StoreTest, SharedBlocksAreStoredOnce) {
  const auto store = Open();
  const Key root = store->Root("model", 1);
  PutText(*store, root, Text(1, 0, 512, 1024));
  PutText(*store, root, Text(1, 1, 512, 1024));
  PutText(*store, root, Text(1, 1, 512, 1024));
  ASSERT_TRUE(store->Flush().ok());
  const StoreStats stats = store->stats();
  EXPECT_EQ(stats.blocks, 12u);  // 4 shared, 4 of each
  EXPECT_EQ(stats.states, 2u);
  EXPECT_EQ(stats.bytes, 12 * RecordBytes(128, kBlockPayload) + 2 * RecordBytes(0, kStatePayload));
}

TEST_F(StoreTest, TheBudgetHoldsAndChildrenGoFirst) {
  const uint64_t budget = 40 * RecordBytes(128, kBlockPayload);
  const auto store = Open({.max_bytes = budget, .segment_bytes = 20000});
  const Key root = store->Root("model", 1);
  for (uint64_t i = 0; i < 40; ++i) {
    PutText(*store, root, Text(1 + i % 7, i, 256, 300 + 128 * (i % 5)));
    ASSERT_TRUE(store->Flush().ok());
    EXPECT_LE(store->stats().bytes, budget);
    for (const IndexRow& row : store->Rows()) {
      EXPECT_TRUE(row.parent == root || store->Contains(row.parent));
    }
  }
  EXPECT_GT(store->stats().evicted, 0u);
  uint64_t on_disk = 0;
  for (const fs::path& path : Segments()) on_disk += fs::file_size(path);
  EXPECT_LT(on_disk, 4 * budget);  // emptied segments are removed
}

TEST_F(StoreTest, WhatWasUsedOrPinnedStays) {
  const uint64_t budget = 30 * RecordBytes(128, kBlockPayload);
  const auto store = Open({.max_bytes = budget});
  const Key root = store->Root("model", 1);
  const Tokens used = Text(1, 0, 0, 640);
  const Tokens pinned = Text(2, 0, 0, 640);
  PutText(*store, root, used);
  const std::vector<Key> keys = PutText(*store, root, pinned);
  ASSERT_TRUE(store->Flush().ok());
  ASSERT_TRUE(store->SetPinned(keys.back(), true).ok());
  for (uint64_t i = 0; i < 30; ++i) {
    ReadText(*store, root, used);
    PutText(*store, root, Text(10 + i, 0, 0, 640));
    ASSERT_TRUE(store->Flush().ok());
  }
  EXPECT_EQ(store->Find(root, used).blocks.size(), 5u);
  EXPECT_EQ(store->Find(root, pinned).blocks.size(), 5u);
  EXPECT_TRUE(store->Find(root, pinned).state.has_value());
  EXPECT_EQ(store->SetPinned(Key{1, 2}, true).error().code, ErrorCode::kNotFound);
}

TEST_F(StoreTest, FlippedBitsAreMisses) {
  const Tokens text = Text(1, 0, 0, 1280);
  std::vector<Key> keys;
  {
    const auto store = Open();
    keys = PutText(*store, store->Root("model", 1), text);
  }
  const size_t record = RecordBytes(128, kBlockPayload);
  Flip(Segments()[0], 6 * record + 99);
  const auto store = Open();
  const Key root = store->Root("model", 1);
  ReadBack read = ReadText(*store, root, text);
  EXPECT_TRUE(read.failed);
  EXPECT_FALSE(read.wrong);
  // It and what stood on it are gone; what came before is as good as ever.
  read = ReadText(*store, root, text);
  EXPECT_FALSE(read.failed || read.wrong);
  EXPECT_EQ(read.path.blocks.size(), 6u);
  EXPECT_EQ(store->stats().corrupt, 1u);
  // And can be stored again.
  PutText(*store, root, text);
  ASSERT_TRUE(store->Flush().ok());
  read = ReadText(*store, root, text);
  EXPECT_EQ(read.path.blocks.size(), 10u);
  EXPECT_FALSE(read.failed || read.wrong);
}

TEST_F(StoreTest, ADeletedSegmentIsAMiss) {
  const Tokens text = Text(1, 0, 0, 640);
  { PutText(*Open(), RootKey("model", 1), text); }
  {
    const auto store = Open();
    PutText(*store, store->Root("model", 1), text);
  }
  for (const fs::path& path : Segments()) fs::remove(path);
  const auto store = Open();
  EXPECT_TRUE(store->Find(store->Root("model", 1), text).blocks.empty());
  PutText(*store, store->Root("model", 1), text);
  ASSERT_TRUE(store->Flush().ok());
  EXPECT_FALSE(ReadText(*store, store->Root("model", 1), text).failed);
}

TEST_F(StoreTest, ATruncatedSegmentIsAMiss) {
  const Tokens text = Text(1, 0, 0, 640);
  {
    const auto store = Open();
    PutText(*store, store->Root("model", 1), text);
  }
  {
    // Under a running store: the read ends early.
    const auto store = Open();
    fs::resize_file(Segments()[0], 3000);
    const ReadBack read = ReadText(*store, store->Root("model", 1), text);
    EXPECT_TRUE(read.failed);
    EXPECT_FALSE(read.wrong);
  }
  const auto store = Open();
  const ReadBack read = ReadText(*store, store->Root("model", 1), text);
  EXPECT_FALSE(read.failed || read.wrong);
}

TEST_F(StoreTest, ABrokenIndexIsSetAside) {
  const Tokens text = Text(1, 0, 0, 640);
  {
    const auto store = Open();
    PutText(*store, store->Root("model", 1), text);
  }
  std::ofstream(dir_ + "/index.db", std::ios::trunc) << std::string(5000, 'x');
  std::string log;
  const auto store = Open({.log = [&](std::string_view line) { log += line; }});
  ASSERT_NE(store, nullptr);
  EXPECT_TRUE(store->Find(store->Root("model", 1), text).blocks.empty());
  EXPECT_NE(log.find("kv_disk_index_broken"), std::string::npos) << log;
  EXPECT_TRUE(fs::exists(dir_ + "/index.broken"));
  PutText(*store, store->Root("model", 1), text);
  EXPECT_TRUE(store->Flush().ok());
}

TEST_F(StoreTest, TheSecondIsRefused) {
  const auto first = Open();
  const auto second = OpenDirectory(dir_, true);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(second.error().message.find(StrCat("process ", getpid())), std::string::npos)
      << second.error().message;
  // To look is allowed.
  PutText(*first, first->Root("model", 1), Text(1, 0, 0, 640));
  ASSERT_TRUE(first->Flush().ok());
  const auto reader = Open({.read_only = true});
  ASSERT_NE(reader, nullptr);
  EXPECT_EQ(reader->stats().blocks, 5u);
}

TEST_F(StoreTest, PurgeRemovesARootAndNoOther) {
  const auto store = Open();
  const Tokens text = Text(1, 0, 0, 1000);
  const Key one = store->Root("model", 1);
  const Key two = store->Root("model", 2);
  PutText(*store, one, text);
  PutText(*store, two, text);
  store->Purge(one);  // some of it may be queued yet
  ASSERT_TRUE(store->Flush().ok());
  EXPECT_TRUE(store->Find(one, text).blocks.empty());
  EXPECT_EQ(store->Find(two, text).blocks.size(), 7u);
}

TEST_F(StoreTest, AFullQueueDropsAndSaysSo) {
  const auto store = Open({.queue_bytes = 5000});
  const Key root = store->Root("model", 1);
  for (uint64_t i = 0; i < 200; ++i) PutText(*store, root, Text(i, 0, 0, 1280));
  EXPECT_GT(store->stats().dropped, 0u);
  ASSERT_TRUE(store->Flush().ok());  // what was taken is stored
  for (const IndexRow& row : store->Rows()) {
    EXPECT_TRUE(row.parent == root || store->Contains(row.parent));
  }
}

}  // namespace
}  // namespace cachalot::diskcache
