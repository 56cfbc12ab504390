#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds every libFuzzer target and runs each for SECONDS (default 20) on its corpus.
# The build is asan's, so that a check compiles the library once for both.
# The corpus in the tree is read, never written: new inputs go to build/fuzz/corpus/NAME.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/../.."
seconds=${1:-20}
targets=()
for source in tests/fuzz/*_fuzz.cc; do targets+=("$(basename "$source" .cc)"); done
if [ ${#targets[@]} -eq 0 ]; then
  echo "SKIPPED: no tests/fuzz/*_fuzz.cc; no parser is fuzzed"
  exit 0
fi
cmake --preset asan >/dev/null
cmake --build --preset asan --target "${targets[@]}" -j "$(nproc)"
for target in "${targets[@]}"; do
  name=${target%_fuzz}
  found=build/fuzz/corpus/$name
  log=build/fuzz/$name.log
  mkdir -p "$found"
  corpus=("$found")
  [ ! -d "tests/fuzz/corpus/$name" ] || corpus+=("tests/fuzz/corpus/$name")
  echo "--- $target, $seconds s"
  build/asan/tests/"$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 \
    -print_final_stats=1 -artifact_prefix=build/fuzz/"$name"- "${corpus[@]}" >"$log" 2>&1 || {
    tail -n 40 "$log"
    echo "finding: $target, see $log and build/fuzz/$name-*"
    exit 1
  }
  grep 'stat::number_of_executed_units' "$log"
done
