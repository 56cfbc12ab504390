// SPDX-License-Identifier: Apache-2.0
// Peaks are loops of independent multiply-adds in registers, twelve accumulators deep (latency 4 to
// 6, two a cycle); reads are sums of whole cache lines, one contiguous slice a thread.
#include "cachalot/kernels/machine_limits.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "cachalot/kernels/matmul.h"
#include "cachalot/threading/aligned_buffer.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own AVX-512 headers: _mm512_undefined is undefined on purpose (PR105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#endif

#include "hwy/base.h"

namespace cachalot::kernels {
namespace {

constexpr size_t kAccumulators = 12;
constexpr size_t kIterations = 400000;
constexpr size_t kRuns = 5;

using LoopFn = float(size_t iterations);

// Eight float lanes: the compiler makes of it what the baseline has.
float PortableLoop(size_t iterations) {
  float acc[kAccumulators * 8] = {};
  for (size_t i = 0; i < iterations; ++i) {
    for (float& a : acc) a = a * 0.5f + 1.0f;
  }
  float sum = 0;
  for (float a : acc) sum += a;
  return sum;
}

float SumLines(const uint8_t* data, size_t bytes) {
  float acc[16] = {};
  const float* values = reinterpret_cast<const float*>(data);
  for (size_t i = 0; i + 16 <= bytes / 4; i += 16) {
    for (size_t lane = 0; lane < 16; ++lane) acc[lane] += values[i + lane];
  }
  float sum = 0;
  for (float a : acc) sum += a;
  return sum;
}

}  // namespace
}  // namespace cachalot::kernels

#if defined(__x86_64__)
HWY_PUSH_ATTRIBUTES("avx2,fma")
namespace cachalot::kernels {
namespace {

float FmaLoop256(size_t iterations) {
  const __m256 x = _mm256_set1_ps(0.5f);
  __m256 acc[kAccumulators];
  for (__m256& a : acc) a = x;
  for (size_t i = 0; i < iterations; ++i) {
    HWY_UNROLL(12)
    for (__m256& a : acc) a = _mm256_fmadd_ps(a, x, x);
  }
  for (size_t i = 1; i < kAccumulators; ++i) acc[0] = _mm256_add_ps(acc[0], acc[i]);
  return _mm256_cvtss_f32(acc[0]);
}

}  // namespace
}  // namespace cachalot::kernels
HWY_POP_ATTRIBUTES

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")
namespace cachalot::kernels {
namespace {

float FmaLoop512(size_t iterations) {
  const __m512 x = _mm512_set1_ps(0.5f);
  __m512 acc[kAccumulators];
  for (__m512& a : acc) a = x;
  for (size_t i = 0; i < iterations; ++i) {
    HWY_UNROLL(12)
    for (__m512& a : acc) a = _mm512_fmadd_ps(a, x, x);
  }
  for (size_t i = 1; i < kAccumulators; ++i) acc[0] = _mm512_add_ps(acc[0], acc[i]);
  return _mm512_cvtss_f32(acc[0]);
}

float Bf16Loop512(size_t iterations) {
  const __m512i x = _mm512_set1_epi16(0x3F80);
  __m512 acc[kAccumulators];
  for (__m512& a : acc) a = _mm512_setzero_ps();
  for (size_t i = 0; i < iterations; ++i) {
    HWY_UNROLL(12)
    for (__m512& a : acc) a = _mm512_dpbf16_ps(a, (__m512bh)x, (__m512bh)x);
  }
  for (size_t i = 1; i < kAccumulators; ++i) acc[0] = _mm512_add_ps(acc[0], acc[i]);
  return _mm512_cvtss_f32(acc[0]);
}

float Int8Loop512(size_t iterations) {
  const __m512i x = _mm512_set1_epi8(1);
  __m512i acc[kAccumulators];
  for (__m512i& a : acc) a = _mm512_setzero_si512();
  for (size_t i = 0; i < iterations; ++i) {
    HWY_UNROLL(12)
    for (__m512i& a : acc) a = _mm512_dpbusd_epi32(a, x, x);
  }
  for (size_t i = 1; i < kAccumulators; ++i) acc[0] = _mm512_add_epi32(acc[0], acc[i]);
  return static_cast<float>(_mm512_cvtsi512_si32(acc[0]));
}

float SumLines512(const uint8_t* data, size_t bytes) {
  __m512i acc[4];
  for (__m512i& a : acc) a = _mm512_setzero_si512();
  for (size_t i = 0; i + 256 <= bytes; i += 256) {
    for (size_t j = 0; j < 4; ++j) {
      _mm_prefetch(reinterpret_cast<const char*>(data + i + 64 * j + 4096), _MM_HINT_T0);
      acc[j] = _mm512_add_epi32(acc[j], _mm512_loadu_si512(data + i + 64 * j));
    }
  }
  const __m512i sum =
      _mm512_add_epi32(_mm512_add_epi32(acc[0], acc[1]), _mm512_add_epi32(acc[2], acc[3]));
  return static_cast<float>(_mm512_reduce_add_epi32(sum));
}

}  // namespace
}  // namespace cachalot::kernels
HWY_POP_ATTRIBUTES
#endif  // __x86_64__

#if defined(__x86_64__)
HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,amx-tile,amx-bf16")
#include "cachalot/kernels/amx_tiles-inl.h"
namespace cachalot::kernels {
namespace {

// Four accumulators in turns: a product waits four times as long for one as for the unit.
float AmxBf16Loop(size_t iterations) {
  const Tiles tiles;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(6);
  for (size_t i = 0; i < iterations; ++i) {
    HWY_UNROLL(3)
    for (size_t round = 0; round < kAccumulators / 4; ++round) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 6);
      _tile_dpbf16ps(2, 4, 6);
      _tile_dpbf16ps(3, 4, 6);
    }
  }
  alignas(64) float sums[kAmxRows * kAmxRows];
  _tile_stored(0, sums, 64);
  MemoryFence();
  return sums[0];
}

}  // namespace
}  // namespace cachalot::kernels
HWY_POP_ATTRIBUTES
#endif  // __x86_64__

namespace cachalot::kernels {
namespace {

struct Loops {
  LoopFn* f32 = &PortableLoop;
  double f32_lanes = 8;
  LoopFn* bf16 = nullptr;
  double bf16_flops = 64;  // of an instruction
  LoopFn* int8 = nullptr;
  float (*sum_lines)(const uint8_t*, size_t) = &SumLines;
};

// What `target` can do, as in SupportedTargets().
Loops ChooseLoops(Target target) {
  Loops loops;
#if defined(__x86_64__)
  if (target == Target::kAvx2) loops.f32 = &FmaLoop256;
  if (HasAvx512(target)) {
    loops.f32 = &FmaLoop512;
    loops.f32_lanes = 16;
    loops.sum_lines = &SumLines512;
  }
  if (HasVnni(target)) loops.int8 = &Int8Loop512;
  if (HasBf16Dot(target)) loops.bf16 = &Bf16Loop512;
  if (target == Target::kAmxBf16) {
    loops.bf16 = &AmxBf16Loop;
    loops.bf16_flops = 2.0 * kAmxRows * kAmxRows * kAmxK;
  }
#else
  static_cast<void>(target);
#endif
  return loops;
}

// Seconds of the fastest of a few runs of `task` on every thread of the pool.
template <typename Task>
double BestSeconds(const Context& ctx, const Task& task) {
  double best = 1e30;
  for (size_t run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    ctx.pool->ParallelFor(ctx.pool->num_threads(), task);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best;
}

// `ops` of one accumulator update.
double MeasureRate(const Context& ctx, LoopFn* loop, double ops) {
  if (loop == nullptr) return 0;
  // Keeps the loops' results alive.
  std::vector<float> sink(ctx.pool->num_threads());
  const double seconds =
      BestSeconds(ctx, [&](size_t task, size_t) { sink[task] = loop(kIterations); });
  return ops * kAccumulators * kIterations * static_cast<double>(sink.size()) / seconds;
}

// Memory to read, written once; in 2 MiB pages where the system has them, as weights are at best:
// with small ones a virtual machine spends as much on translations as on reading.
class ReadBuffer {
 public:
  explicit ReadBuffer(size_t bytes) : size_(bytes) {
    constexpr size_t kHugePageBytes = size_t{2} << 20;
    const size_t whole = (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
    data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kHugePageBytes, whole)));
    if (data_ == nullptr) throw std::bad_alloc();
    madvise(data_.get(), whole, MADV_HUGEPAGE);  // a wish
    std::memset(data_.get(), 1, whole);
  }
  const uint8_t* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t, Free> data_;
  size_t size_;
};

double MeasureReads(const Context& ctx, const Loops& loops, const ReadBuffer& buffer) {
  const size_t threads = ctx.pool->num_threads();
  const size_t slice = buffer.size() / threads / kCacheLineBytes * kCacheLineBytes;
  std::vector<float> sink(threads);
  const double seconds = BestSeconds(ctx, [&](size_t task, size_t) {
    sink[task] = loops.sum_lines(buffer.data() + task * slice, slice);
  });
  return static_cast<double>(slice * threads) / seconds;
}

// Seconds per pass of every thread over one panel's worth of weights that stays in its L2 cache,
// for `tokens` tokens. Many jobs over the same weights make one long parallel region.
double ProductSeconds(const Context& ctx, WeightKind kind, uint32_t tokens) {
  constexpr uint32_t kRows = 64;
  constexpr uint32_t kCols = 4096;
  const size_t jobs_per_thread = 64;
  WeightView w{.kind = kind, .rows = kRows, .cols = kCols};
  AlignedBuffer<uint8_t> data(kRows * w.row_bytes());
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(0x11 * (i % 7));
  AlignedBuffer<uint8_t> scales(size_t{kRows} * kCols / kFP4Block);
  std::fill_n(scales.data(), scales.size(), uint8_t{127});  // 2^0
  w.data = data.data();
  w.scales = scales.data();
  AlignedBuffer<BF16> x(size_t{tokens} * kCols);
  const size_t num_jobs = jobs_per_thread * ctx.pool->num_threads();
  AlignedBuffer<float> y(num_jobs * tokens * kRows);
  std::vector<MatMulJob<BF16>> jobs;
  for (size_t i = 0; i < num_jobs; ++i) {
    jobs.push_back({.x = {x.data(), tokens, kCols},
                    .w = w,
                    .y = {y.data() + i * tokens * kRows, tokens, kRows}});
  }
  double best = 1e30;
  for (size_t run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    MatMul(jobs, ctx);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best / static_cast<double>(size_t{kRows} * kCols * num_jobs);
}

// One token's time is widening and its dots, a second token adds dots only.
double WideningRate(const Context& ctx, WeightKind kind) {
  const double one = ProductSeconds(ctx, kind, 1);
  const double two = ProductSeconds(ctx, kind, 2);
  const double widening = one - std::max(0.0, two - one);
  return widening > 0 ? 1.0 / widening : 0.0;
}

}  // namespace

size_t BytesPastCaches() {
  const int64_t cache = sysconf(_SC_LEVEL3_CACHE_SIZE);  // 0 or -1: not known
  const auto twice = 2 * static_cast<size_t>(std::max<int64_t>(0, cache));
  return std::clamp(twice, size_t{256} << 20, size_t{1} << 30);
}

std::vector<double> ReadBandwidths(Target target, uint32_t max_threads, size_t buffer_bytes) {
  const Loops loops = ChooseLoops(target);
  const ReadBuffer buffer(buffer_bytes);
  std::vector<double> rates;
  for (uint32_t threads = 1; threads <= max_threads; ++threads) {
    ThreadPool pool(threads);
    rates.push_back(MeasureReads({.pool = &pool, .target = target}, loops, buffer));
  }
  return rates;
}

WideningRates MeasureWidening(const Context& ctx) {
  return {.fp4_per_s = WideningRate(ctx, WeightKind::kFP4),
          .fp8_per_s = WideningRate(ctx, WeightKind::kFP8)};
}

MachineLimits MeasureMachineLimits(const Context& ctx, size_t buffer_bytes) {
  const Loops loops = ChooseLoops(ctx.target);
  MachineLimits limits;
  limits.read_bytes_per_s = MeasureReads(ctx, loops, ReadBuffer(buffer_bytes));
  limits.f32_flop_per_s = MeasureRate(ctx, loops.f32, 2 * loops.f32_lanes);
  limits.bf16_flop_per_s = MeasureRate(ctx, loops.bf16, loops.bf16_flops);
  limits.int8_op_per_s = MeasureRate(ctx, loops.int8, 128);
  return limits;
}

MachineLimits Best(const MachineLimits& a, const MachineLimits& b) {
  return {.read_bytes_per_s = std::max(a.read_bytes_per_s, b.read_bytes_per_s),
          .f32_flop_per_s = std::max(a.f32_flop_per_s, b.f32_flop_per_s),
          .bf16_flop_per_s = std::max(a.bf16_flop_per_s, b.bf16_flop_per_s),
          .int8_op_per_s = std::max(a.int8_op_per_s, b.int8_op_per_s)};
}

}  // namespace cachalot::kernels
