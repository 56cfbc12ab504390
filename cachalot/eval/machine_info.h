// SPDX-License-Identifier: Apache-2.0
// What a benchmark must say about where it ran, from /proc; empty or 0 where a system has none.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cachalot::eval {

struct MachineInfo {
  std::string cpu;     // "AMD EPYC 9R14"
  std::string kernel;  // "Linux version 6.1.0 ..." up to the first bracket
  uint32_t logical_cpus = 0;
  uint64_t memory_bytes = 0;
  uint64_t available_bytes = 0;  // for new memory, without swapping
};
MachineInfo ReadMachineInfo();

struct MemoryUse {
  uint64_t peak_bytes = 0;     // resident, of the process's life
  uint64_t mapped_bytes = 0;   // resident now, pages of files: weights under --mmap
  uint64_t private_bytes = 0;  // resident now, the rest: scratch, KV, code's heap
};
MemoryUse ReadMemoryUse();

// The text after "key" and its colon in `text`, blanks around it removed; empty without the key.
std::string_view ProcField(std::string_view text, std::string_view key);
// The same as bytes, from "123 kB"; 0 if it is no such number.
uint64_t ProcBytes(std::string_view text, std::string_view key);

}  // namespace cachalot::eval
