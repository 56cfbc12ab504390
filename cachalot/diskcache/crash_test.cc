// SPDX-License-Identifier: Apache-2.0
// Power cuts at every operation, with unsynced writes kept, lost or torn; full disks, read errors
// and flipped bits. Never a wrong byte; nothing lost that Flush acknowledged.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <set>

#include "cachalot/diskcache/fault_storage.h"
#include "cachalot/diskcache/store.h"
#include "cachalot/diskcache/store_test_support.h"

namespace cachalot::diskcache {
namespace {

// CACHALOT_CRASH_POINTS=10000 is what `make crash` asks for.
uint64_t NumPoints(uint64_t otherwise) {
  const char* text = std::getenv("CACHALOT_CRASH_POINTS");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct World {
  MemoryDisk disk;
  std::vector<Tokens> texts;         // everything ever put
  std::vector<Tokens> acknowledged;  // put whole and flushed
};

std::unique_ptr<Store> Open(World& world, StoreOptions options = {}) {
  auto store = Store::Open(std::make_unique<MemoryStorage>(world.disk), std::move(options));
  return store.ok() ? std::move(store).value() : nullptr;
}

// Puts a few texts that share beginnings, flushing now and then, until the power goes.
void Work(World& world, uint64_t seed, const StoreOptions& options) {
  const auto store = Open(world, options);
  if (store == nullptr) return;
  const Key root = store->Root("model", seed % 2);
  for (uint64_t i = 0; i < 4; ++i) {
    const uint64_t draw = CounterRandom(seed, 1, i);
    const Tokens text = Text(draw % 3, draw, 128 * (draw / 8 % 5), 200 + draw / 64 % 500);
    const size_t records = text.size() / kBlockTokens + 1;
    const bool whole = PutText(*store, root, text).size() == records;
    world.texts.push_back(text);
    if (i % 2 == 1 && store->Flush().ok() && whole) world.acknowledged.push_back(text);
  }
}

// Every text of both scopes reads back right or not at all; what was acknowledged in `scope`,
// right.
void Check(World& world, uint64_t point, bool expect_acknowledged, uint64_t scope,
           const StoreOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  auto opened = Store::Open(std::make_unique<MemoryStorage>(world.disk), options);
  // A flipped version number is one we do not read; everything else opens, if empty.
  if (!opened.ok() && opened.error().code == ErrorCode::kVersionMismatch) return;
  ASSERT_TRUE(opened.ok()) << "point " << point << ": " << opened.error().message;
  const auto store = std::move(opened).value();
  const std::chrono::duration<double> recovery = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(recovery.count(), 1.0);
  for (const uint64_t any : {0, 1}) {
    for (const Tokens& text : world.texts) {
      ASSERT_FALSE(ReadText(*store, store->Root("model", any), text).wrong) << "point " << point;
    }
  }
  if (!expect_acknowledged) return;
  const Key root = store->Root("model", scope);
  for (const Tokens& text : world.acknowledged) {
    const ReadBack read = ReadText(*store, root, text);
    ASSERT_FALSE(read.failed) << "point " << point;
    ASSERT_EQ(read.path.blocks.size(), text.size() / kBlockTokens) << "point " << point;
    ASSERT_TRUE(read.path.state.has_value()) << "point " << point;
    ASSERT_EQ(read.path.state->position, text.size()) << "point " << point;
  }
}

// A world lives through several cuts, so that recovered stores are cut again. `operations` is about
// what a life of it has.
void CutPower(uint64_t points, uint64_t operations, bool expect_acknowledged,
              const StoreOptions& options) {
  constexpr uint64_t kLives = 5;
  for (uint64_t seed = 0; seed * kLives < points; ++seed) {
    World world;
    for (uint64_t life = 0; life < kLives; ++life) {
      const uint64_t point = seed * kLives + life;
      const uint64_t texts = expect_acknowledged ? seed : seed + life * 17;  // the same, or others
      world.disk.cut_at = 1 + CounterRandom(point, 2, 0) % operations;
      Work(world, texts, options);
      world.disk.Restart(point);
      Check(world, point, expect_acknowledged, texts % 2, options);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(CrashTest, PowerCutsLoseNothingAcknowledged) {
  CutPower(NumPoints(2000), 70, /*expect_acknowledged=*/true, {.segment_bytes = 6000});
}

// With a budget so small that everything is evicted and punched all the time: nothing wrong.
TEST(CrashTest, EvictionUnderPowerCutsServesNothingWrong) {
  CutPower(NumPoints(1000), 90, /*expect_acknowledged=*/false,
           {.max_bytes = 7 * RecordBytes(128, kBlockPayload), .segment_bytes = 6000});
}

// Any flipped bit of any file, the index included.
TEST(CrashTest, FlippedBitsServeNothingWrong) {
  const uint64_t points = NumPoints(1000) / 2;
  for (uint64_t seed = 0; seed < points; ++seed) {
    World world;
    Work(world, seed, {});
    auto file = world.disk.files.begin();
    std::advance(file, CounterRandom(seed, 4, 0) % world.disk.files.size());
    auto& data = file->second->current;
    for (uint64_t i = 0; i < 1 + seed % 3 && !data.empty(); ++i) {
      data[CounterRandom(seed, 5, i) % data.size()] ^=
          static_cast<uint8_t>(1u << CounterRandom(seed, 6, i) % 8);
    }
    Check(world, seed, false, seed % 2, {});
    if (::testing::Test::HasFatalFailure()) return;
  }
}

// The disk fills up in the middle of whatever it is; later there is room again.
TEST(CrashTest, AFullDiskDropsAndRecovers) {
  const StoreOptions options{.segment_bytes = 6000};
  for (uint64_t seed = 0; seed < 200; ++seed) {
    World world;
    world.disk.capacity = 3000 + CounterRandom(seed, 8, 0) % 60000;
    Work(world, seed, options);
    // A disk without room for an index is refused at the start.
    if (Open(world, options) != nullptr) Check(world, seed, true, seed % 2, options);
    world.disk.capacity = UINT64_MAX;
    Work(world, seed, options);
    Check(world, seed, true, seed % 2, options);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(CrashTest, ReadErrorsAreMisses) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    World world;
    Work(world, seed, {});
    world.disk.fail_reads_at = 1 + seed % 5;
    Check(world, seed, false, seed % 2, {});
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(CrashTest, WriteErrorsAreReportedByFlush) {
  World world;
  const auto store = Open(world);
  const Key root = store->Root("model", 1);
  world.disk.fail_writes = true;
  PutText(*store, root, Text(1, 0, 0, 640));
  EXPECT_FALSE(store->Flush().ok());
  EXPECT_TRUE(store->Find(root, Text(1, 0, 0, 640)).blocks.empty());
  // Writing pauses: what is offered meanwhile is dropped at once.
  world.disk.fail_writes = false;
  EXPECT_TRUE(PutText(*store, root, Text(2, 0, 0, 640)).empty());
  EXPECT_TRUE(store->Flush().ok());
}

}  // namespace
}  // namespace cachalot::diskcache
