// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/machine_info.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <thread>

namespace cachalot::eval {
namespace {

std::string ReadText(const char* path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

}  // namespace

std::string_view ProcField(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    const size_t colon = line.find(':');
    if (colon != std::string_view::npos && Trim(line.substr(0, colon)) == key) {
      return Trim(line.substr(colon + 1));
    }
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
  return {};
}

uint64_t ProcBytes(std::string_view text, std::string_view key) {
  const std::string_view value = ProcField(text, key);
  uint64_t kib = 0;
  const auto parsed = std::from_chars(value.data(), value.data() + value.size(), kib);
  if (parsed.ec != std::errc() || value.substr(value.find_last_not_of("kKbB ") + 1) != " kB") {
    return 0;
  }
  return kib * 1024;
}

MachineInfo ReadMachineInfo() {
  const std::string memory = ReadText("/proc/meminfo");
  const std::string version = ReadText("/proc/version");
  return {.cpu = std::string(ProcField(ReadText("/proc/cpuinfo"), "model name")),
          .kernel = std::string(Trim(version.substr(0, version.find('(')))),
          .logical_cpus = std::max(1u, std::thread::hardware_concurrency()),
          .memory_bytes = ProcBytes(memory, "MemTotal"),
          .available_bytes = ProcBytes(memory, "MemAvailable")};
}

MemoryUse ReadMemoryUse() {
  const std::string status = ReadText("/proc/self/status");
  return {.peak_bytes = ProcBytes(status, "VmHWM"),
          .mapped_bytes = ProcBytes(status, "RssFile") + ProcBytes(status, "RssShmem"),
          .private_bytes = ProcBytes(status, "RssAnon")};
}

}  // namespace cachalot::eval
