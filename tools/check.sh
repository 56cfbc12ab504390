#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools/check.sh all | ci: the checks in order; stops at the first stage that fails. Each stage prints
# its time. `ci` leaves out fuzzing and sanitizers until a full run of them has been seen to pass in
# CI's time; `all` is what to run before a release.
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
if [ "${1:-all}" = all ]; then
  stage "fuzz smoke" make --no-print-directory fuzz
  stage "thread sanitizer" make --no-print-directory tsan
  stage "tests under address and undefined-behavior sanitizers" make --no-print-directory asan
fi
stage "README's first command" bash -c 'make --no-print-directory run </dev/null'
stage "README's second command: tests" make --no-print-directory test
echo "=== all stages passed in $SECONDS s"
