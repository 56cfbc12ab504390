// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace cachalot::cli {
namespace {

// First index from which all of the rest of `text` is a beginning of `stop`; text.size() if none.
size_t PartialMatch(std::string_view text, std::string_view stop) {
  const size_t longest = std::min(text.size(), stop.size() - 1);
  for (size_t n = longest; n > 0; --n) {
    if (text.ends_with(stop.substr(0, n))) return text.size() - n;
  }
  return text.size();
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& s) { return s.empty(); });
}

std::string StopMatcher::Push(std::string_view piece) {
  if (stopped_) return {};
  held_ += piece;
  size_t match = std::string::npos;
  size_t partial = held_.size();
  for (const std::string& stop : stops_) {
    match = std::min(match, held_.find(stop));
    partial = std::min(partial, PartialMatch(held_, stop));
  }
  // A longer stop string that began earlier may still complete: wait for it, or the result would
  // depend on how the text was cut.
  stopped_ = match != std::string::npos && match <= partial;
  const size_t safe = stopped_ ? match : partial;
  std::string out = held_.substr(0, safe);
  held_.erase(0, safe);
  if (stopped_) held_.clear();
  return out;
}

std::string StopMatcher::Finish() {
  std::string rest = std::exchange(held_, {});
  if (stopped_) return {};
  // A complete match may have waited for a longer stop string that began earlier.
  size_t match = std::string::npos;
  for (const std::string& stop : stops_) match = std::min(match, rest.find(stop));
  stopped_ = match != std::string::npos;
  if (stopped_) rest.resize(match);
  return rest;
}

}  // namespace cachalot::cli
