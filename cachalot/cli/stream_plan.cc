// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/stream_plan.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "cachalot/base/strings.h"
#include "cachalot/cli/load_plan.h"
#include "cachalot/cli/progress.h"

namespace cachalot::cli {

Result<uint64_t> ParseMemory(std::string_view text) {
  const std::string copy(text);
  char* end = nullptr;
  const double number = std::strtod(copy.c_str(), &end);
  std::string_view unit(end);
  double factor = 0;
  if (unit.empty()) factor = 1;
  constexpr std::string_view kUnits = "KMGT";
  if (!unit.empty()) {
    const size_t power = kUnits.find(static_cast<char>(std::toupper(unit[0])));
    const std::string_view rest = unit.substr(1);
    if (power != std::string_view::npos && (rest.empty() || rest == "B" || rest == "iB")) {
      factor = std::exp2(10.0 * static_cast<double>(power + 1));
    }
  }
  const double bytes = number * factor;
  if (end == copy.c_str() || !(bytes >= 1) || bytes > 1e16) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("memory '", text, "': expected a size as in 24G or 800M")};
  }
  return static_cast<uint64_t>(bytes);
}

Result<std::vector<uint64_t>> ParseMemoryList(std::string_view text) {
  std::vector<uint64_t> sizes;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    CACHALOT_TRY(const uint64_t bytes, ParseMemory(text.substr(begin, end - begin)));
    sizes.push_back(bytes);
    begin = end + 1;
  }
  return sizes;
}

uint64_t StreamPlan::num_slots() const {
  if (sizes.slot_bytes == 0 || memory_bytes <= fixed_bytes()) return 0;
  return std::min((memory_bytes - fixed_bytes()) / sizes.slot_bytes, sizes.num_experts);
}

double StreamPlan::disk_seconds() const {
  if (disk_bytes_per_s <= 0 || sizes.num_experts == 0) return 0;
  const double here = static_cast<double>(num_slots()) / static_cast<double>(sizes.num_experts);
  return (1 - here) * static_cast<double>(routed_bytes) / disk_bytes_per_s;
}

double StreamPlan::memory_seconds() const {
  if (memory_bytes_per_s <= 0) return 0;
  return static_cast<double>(dense_bytes + routed_bytes) / memory_bytes_per_s;
}

double StreamPlan::tokens_per_s() const {
  if (disk_bytes_per_s <= 0 || sizes.num_experts == 0) return 0;
  const double seconds = std::max(disk_seconds(), memory_seconds());
  return seconds > 0 ? 1 / seconds : 0.0;
}

std::string StreamPlan::Describe() const {
  const double here = 100.0 * static_cast<double>(num_slots()) /
                      static_cast<double>(std::max<uint64_t>(1, sizes.num_experts));
  std::string text = fmt::format(
      "plan: {} of memory: dense weights {}, KV {}, a step of {} tokens {}, all else {}; the rest "
      "holds {} of {} experts of {} ({:.0f} %), the others are read from disk as needed",
      FormatBytes(memory_bytes), FormatBytes(sizes.dense_bytes), FormatBytes(kv_bytes), chunk,
      FormatBytes(scratch_bytes), FormatBytes(reserved_bytes + sizes.small_bytes), num_slots(),
      sizes.num_experts, FormatBytes(sizes.slot_bytes), here);
  if (tokens_per_s() > 0) {
    text += fmt::format(
        "\nplan: a token uses {} of experts; disk {}/s, memory {}/s: at best {:.2f} tokens/s if "
        "all "
        "are chosen as often, more if some are chosen more",
        FormatBytes(routed_bytes), FormatBytes(static_cast<uint64_t>(disk_bytes_per_s)),
        FormatBytes(static_cast<uint64_t>(memory_bytes_per_s)), tokens_per_s());
  }
  if (memory_seconds() > 0 && disk_seconds() > memory_seconds()) {
    text += fmt::format(
        "\nplan: the disk is what limits: {:.0f} ms of a token against {:.0f} ms of memory; more "
        "--memory, a faster disk or a second one (--weights-mirror) would help",
        1e3 * disk_seconds(), 1e3 * memory_seconds());
  }
  return text;
}

Status StreamPlan::Check() const {
  if (num_slots() >= stream::kMinSlots) return {};
  return Error{ErrorCode::kResourceExhausted,
               StrCat("--memory ", FormatBytes(memory_bytes), ": dense weights of ",
                      FormatBytes(sizes.dense_bytes), ", KV of ", FormatBytes(kv_bytes),
                      ", a step of ", chunk, " tokens (", FormatBytes(scratch_bytes), ") and ",
                      FormatBytes(reserved_bytes + sizes.small_bytes), " of all else leave less ",
                      "than the ", stream::kMinSlots, " experts of ", FormatBytes(sizes.slot_bytes),
                      " that are needed; give at least ",
                      FormatBytes(fixed_bytes() + stream::kMinSlots * sizes.slot_bytes),
                      ", or lower --max-context or --chunk")};
}

uint32_t StreamChunk(const model::Config& config, uint64_t memory_bytes) {
  uint32_t chunk = 2048;
  while (chunk > 64 && EstimateScratchBytes(config, chunk) > memory_bytes / 8) chunk /= 2;
  return chunk;
}

}  // namespace cachalot::cli
