// SPDX-License-Identifier: Apache-2.0
// Decoding allocates nothing once it runs: counted by replacing the global allocator of this
// binary.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "cachalot/engine/engine.h"
#include "tests/integration/model_harness.h"

namespace {

std::atomic<size_t> num_allocations{0};

void* CountedAllocate(size_t size, size_t alignment) {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  void* p = alignment <= alignof(std::max_align_t)
                ? std::malloc(size > 0 ? size : 1)
                : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

void* operator new(size_t size) { return CountedAllocate(size, 1); }
void* operator new[](size_t size) { return CountedAllocate(size, 1); }
void* operator new(size_t size, std::align_val_t a) {
  return CountedAllocate(size, static_cast<size_t>(a));
}
// std::stable_sort's; the library's own would not be freed by the operators below.
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(size > 0 ? size : 1);
}
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }

namespace cachalot::testing {
namespace {

// Three sequences decode past several emissions of CSA entries with sampling on; the steps counted
// lie inside one KV block, whose table entry is the one thing that may grow.
TEST(SteadyState, DecodeAllocatesNothing) {
  auto engine =
      engine::Engine::Create(LoadOrFail(std::string(CACHALOT_SOURCE_DIR) + "/models/mini"),
                             {.num_threads = 2, .max_sequences = 3});
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  for (uint32_t i = 0; i < 3; ++i) {
    engine::Request request{.prompt = Ids(260 + 10 * i, 5 + i), .max_new_tokens = 500};
    request.sampling.seed = i;
    request.sampling.top_p = i == 1 ? 0.9f : 1.0f;
    request.sampling.frequency_penalty = i == 2 ? 0.1f : 0.0f;
    ASSERT_TRUE((*engine)->Submit(request).ok());
  }
  for (int step = 0; step < 20; ++step) ASSERT_TRUE((*engine)->Step().ok());
  const size_t before = num_allocations.load();
  for (int step = 0; step < 64; ++step) ASSERT_TRUE((*engine)->Step().ok());
  EXPECT_EQ(num_allocations.load() - before, 0u);
}

}  // namespace
}  // namespace cachalot::testing
