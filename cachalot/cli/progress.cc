// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "cachalot/cli/terminal.h"

namespace cachalot::cli {
namespace {

using namespace std::chrono_literals;

constexpr auto kQuietTime = 1s;      // a task shorter than this shows nothing
constexpr auto kRedrawTime = 100ms;  // faster is unreadable and costs terminal writes
constexpr int kMaxBarColumns = 30;
constexpr int kMinBarColumns = 5;

std::string FormatBar(uint64_t done, uint64_t total, int columns) {
  const auto filled =
      static_cast<size_t>(static_cast<double>(columns) *
                          static_cast<double>(std::min(done, total)) / static_cast<double>(total));
  std::string bar(filled, '=');
  bar.resize(static_cast<size_t>(columns), ' ');
  if (filled < bar.size()) bar[filled] = '>';
  return "[" + bar + "] ";
}

void Draw(const std::string& line) { fmt::print(stderr, "\r\x1b[K{}", line); }
void Wipe() { std::fputs("\r\x1b[K", stderr); }

}  // namespace

std::string FormatDuration(double seconds) {
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1000);
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<uint64_t>(seconds + 0.5);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string FormatBytes(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  // 999.95 would print as 1000.0.
  while (value >= 999.95 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 1, kUnits[unit]);
}

std::string FormatProgress(std::string_view label, uint64_t done, uint64_t total, double seconds,
                           int columns, std::string_view unit) {
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  std::string head = fmt::format("{} ", label);
  std::string tail = fmt::format("{}", done);
  if (total > 0) tail += fmt::format("/{}", total);
  tail += fmt::format(" {0}, {1:.1f} {0}/s", unit, rate);
  if (total > done && rate > 0) {
    tail += fmt::format(", {} left", FormatDuration(static_cast<double>(total - done) / rate));
  }
  // The last column stays free: writing it makes some terminals wrap.
  const int room = columns - 1 - static_cast<int>(head.size() + tail.size()) - 3;
  if (total > 0 && room >= kMinBarColumns)
    head += FormatBar(done, total, std::min(room, kMaxBarColumns));
  std::string line = head + tail;
  if (columns > 0 && line.size() >= static_cast<size_t>(columns)) {
    line.resize(static_cast<size_t>(columns) - 1);
  }
  return line;
}

ProgressBar::ProgressBar(std::string label, std::string unit)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      enabled_(StderrIsTerminal()),
      start_(Clock::now()),
      last_(start_) {}

ProgressBar::~ProgressBar() { Clear(); }

void ProgressBar::Update(uint64_t done, uint64_t total) {
  const auto now = Clock::now();
  if (!enabled_ || now - start_ < kQuietTime || now - last_ < kRedrawTime) return;
  last_ = now;
  shown_ = true;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  Draw(FormatProgress(label_, done, total, seconds, TerminalColumns(), unit_));
}

void ProgressBar::Clear() {
  if (shown_) Wipe();
  shown_ = false;
}

BusyIndicator::BusyIndicator(std::string label) {
  if (!StderrIsTerminal()) return;
  thread_ = std::thread([this, label = std::move(label)] {
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex_);
    bool shown = false;
    auto pause = std::chrono::milliseconds(kQuietTime);
    while (!wake_.wait_for(lock, pause, [this] { return done_; })) {
      const auto elapsed = std::chrono::steady_clock::now() - start;
      const double seconds = std::chrono::duration<double>(elapsed).count();
      Draw(fmt::format("{} {}", label, FormatDuration(seconds)));
      shown = true;
      pause = kRedrawTime;
    }
    if (shown) Wipe();
  });
}

BusyIndicator::~BusyIndicator() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

}  // namespace cachalot::cli
