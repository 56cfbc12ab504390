#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools/check.sh: every check, what CI runs; stops at the first stage that fails. Each stage prints its
# time.
set -euo pipefail
cd "$(dirname "$0")/.."

stage() {
  local name=$1 begin=$SECONDS
  shift
  echo "=== $name"
  "$@" || { echo "=== FAILED: $name"; exit 1; }
  echo "=== $name: $((SECONDS - begin)) s"
}
check_format() { git ls-files '*.cc' '*.h' | xargs clang-format-14 --dry-run --Werror; }

stage "packages" tools/setup.sh build test check
stage "format" check_format
stage "dependency graph" make --no-print-directory deps
stage "README's first command" bash -c 'make --no-print-directory run </dev/null'
stage "README's second command: tests" make --no-print-directory test
stage "soak, one minute" make --no-print-directory soak SOAK_SECONDS=60
stage "thread sanitizer" make --no-print-directory tsan
# Not those that are minutes of the same few loops under the sanitizers, or have a limit in seconds:
# by hand, `make asan` runs all. Fewer power cuts, too: each stops at another write of the same code.
stage "tests under address and undefined-behavior sanitizers" \
  env CACHALOT_CRASH_POINTS=200 make --no-print-directory asan ASAN_SKIP='*Invariance*reference*:*MegabyteOfTheSame*:*A160GB*:*SpikesRollBack*:*GradientsMatchDifferences*:*DiskContinuation*:*ASmallBudget*:Speculation.OutputIs*:*TwentyBudgets*:GoldenTiny.ReferenceMatchesKv:GoldenTiny.ExactMatchesFloat64:*PerplexityOfHeldOutText*'
stage "fuzz smoke" make --no-print-directory fuzz FUZZ_SECONDS=10
echo "=== all stages passed in $SECONDS s"
