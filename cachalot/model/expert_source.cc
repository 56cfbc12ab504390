// SPDX-License-Identifier: Apache-2.0
#include "cachalot/model/expert_source.h"

namespace cachalot::model {
namespace {

// Everything that is counted.
void Combine(ExpertStats& to, const ExpertStats& from, bool add) {
  const auto one = [add](auto& a, const auto& b) { a = add ? a + b : a - b; };
  if (to.layers.size() < from.layers.size()) to.layers.resize(from.layers.size());
  for (size_t l = 0; l < from.layers.size(); ++l) {
    one(to.layers[l].wanted, from.layers[l].wanted);
    one(to.layers[l].hits, from.layers[l].hits);
    one(to.layers[l].late, from.layers[l].late);
    one(to.layers[l].wait_seconds, from.layers[l].wait_seconds);
  }
  if (to.copy_bytes.size() < from.copy_bytes.size()) to.copy_bytes.resize(from.copy_bytes.size());
  for (size_t c = 0; c < from.copy_bytes.size(); ++c) one(to.copy_bytes[c], from.copy_bytes[c]);
  one(to.wanted_read_bytes, from.wanted_read_bytes);
  one(to.read_bytes, from.read_bytes);
  one(to.guessed, from.guessed);
  one(to.guessed_right, from.guessed_right);
  one(to.reads, from.reads);
  one(to.retries, from.retries);
  one(to.failures, from.failures);
  one(to.busy_seconds, from.busy_seconds);
  one(to.queue_seconds, from.queue_seconds);
}

}  // namespace

ExpertStats ExpertStats::Since(const ExpertStats& before) const {
  ExpertStats since = *this;
  Combine(since, before, /*add=*/false);
  return since;
}

void ExpertStats::Add(const ExpertStats& more) {
  num_slots = more.num_slots;
  slot_bytes = more.slot_bytes;
  Combine(*this, more, /*add=*/true);
}

}  // namespace cachalot::model
