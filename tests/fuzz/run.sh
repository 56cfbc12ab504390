#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds every libFuzzer target and runs each for SECONDS (default 20) on its corpus, one a core.
# The build is asan's, so that a check compiles the library once for both.
# The corpus in the tree is read, never written: new inputs go to build/fuzz/corpus/NAME.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/../.."

# run_target TARGET SECONDS
run_target() {
  local target=$1 seconds=$2
  local name=${target%_fuzz}
  local found=build/fuzz/corpus/$name log=build/fuzz/$name.log
  mkdir -p "$found"
  local corpus=("$found")
  [ ! -d "tests/fuzz/corpus/$name" ] || corpus+=("tests/fuzz/corpus/$name")
  build/asan/tests/"$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 \
    -print_final_stats=1 -artifact_prefix=build/fuzz/"$name"- "${corpus[@]}" >"$log" 2>&1 || {
    tail -n 40 "$log"
    echo "finding: $target, see $log and build/fuzz/$name-*"
    return 1
  }
  echo "$target, $seconds s: $(grep 'stat::number_of_executed_units' "$log")"
}

if [ "${1:-}" = --one ]; then
  run_target "$2" "$3"
  exit
fi
seconds=${1:-20}
targets=()
for source in tests/fuzz/*_fuzz.cc; do targets+=("$(basename "$source" .cc)"); done
if [ ${#targets[@]} -eq 0 ]; then
  echo "SKIPPED: no tests/fuzz/*_fuzz.cc; no parser is fuzzed"
  exit 0
fi
cmake --preset asan >/dev/null
cmake --build --preset asan --target "${targets[@]}" -j "$(nproc)"
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} tests/fuzz/run.sh --one {} "$seconds"
