// SPDX-License-Identifier: Apache-2.0
// Where routed experts come from when they are not all in memory. Declared here because the forward
// pass asks; `stream` implements it with a cache over the checkpoint's files. [design/streaming.md]
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::model {

struct ExpertWeights;

// An expert of a layer and how many tokens of the step chose it.
struct WantedExpert {
  uint32_t expert = 0;
  uint32_t num_tokens = 0;
};

struct ReadyExpert {
  uint32_t expert = 0;
  const ExpertWeights* weights = nullptr;  // null: it could not be read
};

// Counted since the source was made. Layers are the model's, then the MTP block.
struct ExpertStats {
  struct Layer {
    uint64_t wanted = 0;      // distinct experts, summed over steps
    uint64_t hits = 0;        // of those, in memory when the layer asked
    uint64_t late = 0;        // of the others, being read already: a guess came too late
    double wait_seconds = 0;  // with nothing left to compute
    // Of 1; 0 where nothing was wanted.
    double hit_rate() const {
      return wanted == 0 ? 0.0 : static_cast<double>(hits) / static_cast<double>(wanted);
    }
  };
  std::vector<Layer> layers;
  uint64_t num_slots = 0;
  uint64_t slot_bytes = 0;
  uint64_t wanted_read_bytes = 0;    // of experts that a layer asked for, as read
  uint64_t read_bytes = 0;           // all reads, also of wrong guesses
  std::vector<uint64_t> copy_bytes;  // of those, from the model's folder, then from its mirror
  uint64_t guessed = 0;              // experts read ahead of being asked for
  uint64_t guessed_right = 0;        // of those, used before they were evicted
  uint64_t reads = 0;                // pieces
  uint64_t retries = 0;              // of pieces
  uint64_t failures = 0;             // experts that could not be read
  double busy_seconds = 0;           // with a read in flight
  double queue_seconds = 0;          // integral of the reads in flight
  // Reads in flight while there are any, on average; 0 without reads.
  double queue_depth() const { return busy_seconds > 0 ? queue_seconds / busy_seconds : 0.0; }

  // What happened between `before` and this.
  ExpertStats Since(const ExpertStats& before) const;
  void Add(const ExpertStats& more);

  Layer Total() const {
    Layer total;
    for (const Layer& layer : layers) {
      total.wanted += layer.wanted;
      total.hits += layer.hits;
      total.late += layer.late;
      total.wait_seconds += layer.wait_seconds;
    }
    return total;
  }
};

// One thread at a time. What a source does changes when a step ends, never what it computes.
class ExpertSource {
 public:
  virtual ~ExpertSource() = default;

  // A step of `num_tokens` asks for `wanted` of `layer` (ascending, distinct; the number of main
  // layers: the MTP block): reads for what is missing start. Ends with a Next(true) that returns
  // nothing.
  virtual void Begin(uint32_t layer, size_t num_tokens, std::span<const WantedExpert> wanted) = 0;
  // Experts of the step that are in memory and were not returned yet. They stay there until the
  // next call. Without `wait` there may be none at the moment; with it, none means that all were
  // returned.
  virtual std::span<const ReadyExpert> Next(bool wait) = 0;
  // `likely` of `layer`, the likeliest first, may be asked for soon. `seconds`: how long the step
  // will be busy until then; what takes longer to read than that is left.
  virtual void Prefetch(uint32_t layer, std::span<const WantedExpert> likely, double seconds) = 0;
  // Whether a guess about a layer could be of use: false when all fits, or nobody wants guesses.
  virtual bool wants_guesses() const = 0;
  // Prompt tokens of a step that make reading and computing balance; 0: no wish.
  virtual uint32_t prefill_chunk() const { return 0; }
  // Why the last expert that could not be read could not.
  virtual Error failure() const = 0;

  virtual ExpertStats stats() const = 0;
};

}  // namespace cachalot::model
