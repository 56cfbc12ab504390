#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools/arm64.sh [JOBS]: builds the numeric modules for 64-bit Arm and runs their tests under qemu-user.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh build test arm64
cmake --preset arm64 >/dev/null
cmake --build --preset arm64 -j "${1:-2}"
# Emulated code runs 10 to 50 times slower than native: what is skipped would take minutes and tests
# nothing that depends on the instruction set.
ctest --test-dir build/arm64 --output-on-failure -j "${1:-2}"
