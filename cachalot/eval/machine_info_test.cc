// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/machine_info.h"

#include <gtest/gtest.h>

namespace cachalot::eval {
namespace {

constexpr std::string_view kText =
    "processor\t: 0\nmodel name\t: AMD EPYC 9R14\n\nMemTotal:       24608260 kB\nVmHWM:\t 5 kB\n"
    "HugePages_Total:       3\nEmpty:\n";

TEST(MachineInfo, FieldsOfProcFiles) {
  EXPECT_EQ(ProcField(kText, "model name"), "AMD EPYC 9R14");
  EXPECT_EQ(ProcField(kText, "Empty"), "");
  EXPECT_EQ(ProcField(kText, "name"), "");
  EXPECT_EQ(ProcField("", "name"), "");
}

TEST(MachineInfo, BytesNeedTheirUnit) {
  EXPECT_EQ(ProcBytes(kText, "MemTotal"), uint64_t{24608260} * 1024);
  EXPECT_EQ(ProcBytes(kText, "VmHWM"), 5u * 1024);
  EXPECT_EQ(ProcBytes(kText, "HugePages_Total"), 0u);
  EXPECT_EQ(ProcBytes(kText, "Absent"), 0u);
}

TEST(MachineInfo, ThisProcessUsesMemory) {
  EXPECT_GE(ReadMachineInfo().logical_cpus, 1u);
  EXPECT_GT(ReadMachineInfo().memory_bytes, 0u);
  const MemoryUse use = ReadMemoryUse();
  EXPECT_GT(use.private_bytes, 0u);
  EXPECT_GE(use.peak_bytes, use.private_bytes);
}

}  // namespace
}  // namespace cachalot::eval
