// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "cachalot/http/answer_internal.h"

namespace cachalot::http {

Answer::Answer(size_t max_unsent_bytes, Wake wake)
    : max_unsent_bytes_(max_unsent_bytes), wake_(std::move(wake)) {}

void Answer::WakeLocked() {
  if (wake_pending_ || !wake_) return;
  wake_pending_ = true;
  wake_();
}

void Answer::Reply(Response response) {
  // Destroyed after the lock is released: it may hold the last reference to a Stream or Exchange.
  std::function<void()> unused;
  const std::lock_guard lock(mutex_);
  if (answered_ || gone_) return;
  answered_ = ended_ = true;
  head_ = std::move(response);
  unused.swap(on_disconnect_);
  WakeLocked();
}

bool Answer::BeginStream(Response head, std::string keep_alive) {
  const std::lock_guard lock(mutex_);
  if (answered_ || gone_) return false;
  answered_ = is_stream_ = true;
  pending_ = std::exchange(head.body, {});
  unsent_bytes_ = pending_.size();
  head_ = std::move(head);
  keep_alive_ = std::move(keep_alive);
  WakeLocked();
  return true;
}

bool Answer::Send(std::string bytes) {
  const std::lock_guard lock(mutex_);
  if (gone_ || cut_ || ended_) return false;
  // A message larger than the limit passes when none is before it, or it could never be sent.
  if (unsent_bytes_ > 0 &&
      (unsent_bytes_ > max_unsent_bytes_ || bytes.size() > max_unsent_bytes_ - unsent_bytes_)) {
    cut_ = true;
    wake_();
    return false;
  }
  unsent_bytes_ += bytes.size();
  if (pending_.empty()) {
    pending_ = std::move(bytes);
  } else {
    pending_ += bytes;
  }
  WakeLocked();
  return true;
}

void Answer::Close() {
  std::function<void()> unused;  // as in Reply
  const std::lock_guard lock(mutex_);
  if (ended_ || gone_) return;
  ended_ = true;
  unused.swap(on_disconnect_);
  WakeLocked();
}

void Answer::Abandon() {
  const std::lock_guard lock(mutex_);
  if (ended_ || gone_ || cut_) return;
  cut_ = true;
  wake_();  // always: a pending wake may have found the connection busy writing
}

bool Answer::gone() const {
  const std::lock_guard lock(mutex_);
  return gone_ || cut_;
}

void Answer::OnDisconnect(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!gone_) {
      // Swapped, not assigned: the former callback must not be destroyed under the lock.
      if (!ended_) on_disconnect_.swap(callback);
      return;
    }
    if (ended_) return;
  }
  if (callback) callback();
}

Answer::Work Answer::Take() {
  const std::lock_guard lock(mutex_);
  wake_pending_ = false;
  Work work;
  work.head = std::exchange(head_, std::nullopt);
  work.is_stream = is_stream_;
  work.keep_alive = std::exchange(keep_alive_, {});
  work.bytes = std::exchange(pending_, {});
  work.ended = ended_;
  return work;
}

void Answer::Wrote(size_t bytes) {
  const std::lock_guard lock(mutex_);
  unsent_bytes_ -= bytes;
}

bool Answer::cut() const {
  const std::lock_guard lock(mutex_);
  return cut_;
}

void Answer::Release() {
  Wake unused;
  const std::lock_guard lock(mutex_);
  unused.swap(wake_);
}

void Answer::Disconnect() {
  std::function<void()> callback;
  Wake unused;
  {
    const std::lock_guard lock(mutex_);
    gone_ = true;
    unused.swap(wake_);
    callback.swap(on_disconnect_);
  }
  if (callback) callback();
}

}  // namespace cachalot::http
