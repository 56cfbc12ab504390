// SPDX-License-Identifier: Apache-2.0
// Tensors that outlive the forward pass, and how they come back if they did not. [V4 3.4.4]
//
// Forward gives each tensor the function that computes it (Make). The backward pass only reads
// (Get): a tensor with memory of its own still has its values; one that shares a place with the
// same tensor of other layers is made again if one of those was there since. Its function reads its
// own inputs by Get, so that exactly what is missing is made, just before it is needed, by the code
// of the forward pass: the bits are the same. Internal to train; one caller at a time.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>

#include "cachalot/base/check.h"

namespace cachalot::train {

// Memory for one tensor of all layers, and whose values lie in it. Values: Matrix, or a struct of
// some that are made together; bytes() is its memory.
template <typename Values>
struct SharedPlace {
  Values values;
  const void* holder = nullptr;
};

template <typename Values>
class Kept {
 public:
  Kept() = default;
  Kept(const Kept&) = delete;  // functions of other tensors refer to it
  Kept& operator=(const Kept&) = delete;

  // From now on in `place`, which outlives this. Before the first Make.
  void Share(SharedPlace<Values>& place) { place_ = &place; }

  // Forward: computes the values by `make` (which sizes them) and remembers it until the next Make.
  // What it refers to outlives the backward pass and is unchanged by then.
  const Values& Make(std::function<void(Values&)> make) {
    make_ = std::move(make);
    return Fill();
  }

  // The values of the last Make. Valid until another tensor that shares the place is made.
  const Values& Get() {
    if (place_ != nullptr && place_->holder != this) return Fill();
    return place_ != nullptr ? place_->values : own_;
  }
  auto view() { return Get().view(); }  // of a Matrix

  // Of its own: none if it shares.
  size_t bytes() const { return own_.bytes(); }

 private:
  const Values& Fill() {
    CACHALOT_CHECK(make_ != nullptr);
    Values& values = place_ != nullptr ? place_->values : own_;
    make_(values);
    if (place_ != nullptr) place_->holder = this;
    return values;
  }

  std::function<void(Values&)> make_;
  SharedPlace<Values>* place_ = nullptr;
  Values own_;
};

}  // namespace cachalot::train
