// SPDX-License-Identifier: Apache-2.0
// One line of progress on standard error: only on a terminal, and only when a task turns out to
// take more than a second, so that short commands stay quiet.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace cachalot::cli {

// "reading the prompt [=====>    ] 512/1024 tokens, 38.1 tokens/s, 14 s left", cut to `columns`
// (the text survives, the bar shrinks and goes first). `total` 0: no bar, no estimate. `unit` is
// what is counted.
std::string FormatProgress(std::string_view label, uint64_t done, uint64_t total, double seconds,
                           int columns, std::string_view unit = "tokens");

// "850 ms", "12.3 s", "4 min 07 s", "3 h 05 min".
std::string FormatDuration(double seconds);
// "12.3 GB"; powers of 1000.
std::string FormatBytes(uint64_t bytes);

// Shows progress of a counted task; Update() is called from its loop.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label, std::string unit = "tokens");
  ~ProgressBar();  // wipes the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void Update(uint64_t done, uint64_t total);
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  std::string unit_;
  bool enabled_;
  bool shown_ = false;
  Clock::time_point start_;
  Clock::time_point last_;
};

// Shows the elapsed time of one blocking call (opening a model), from a thread of its own that
// ends with the object.
class BusyIndicator {
 public:
  explicit BusyIndicator(std::string label);
  ~BusyIndicator();
  BusyIndicator(const BusyIndicator&) = delete;
  BusyIndicator& operator=(const BusyIndicator&) = delete;

 private:
  std::mutex mutex_;  // guards done_
  std::condition_variable wake_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace cachalot::cli
