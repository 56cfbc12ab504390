#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds every libFuzzer target and runs each for SECONDS (default 20) on its corpus.
# The corpus in the tree is read, never written: new inputs go to build/fuzz/corpus/NAME.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-20}
cmake --preset fuzz >/dev/null
targets=()
for source in tests/fuzz/*_fuzz.cc; do targets+=("$(basename "$source" .cc)"); done
cmake --build --preset fuzz --target "${targets[@]}" -j "$(nproc)"
for target in "${targets[@]}"; do
  name=${target%_fuzz}
  found=build/fuzz/corpus/$name
  mkdir -p "$found"
  echo "--- $target, $seconds s"
  build/fuzz/tests/"$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 \
    -print_final_stats=1 -artifact_prefix=build/fuzz/"$name"- "$found" \
    $([ -d "tests/fuzz/corpus/$name" ] && echo "tests/fuzz/corpus/$name") 2>&1 |
    grep -E 'ERROR|SUMMARY|stat::number_of_executed_units|Test unit written' || true
  # libFuzzer's own exit code is lost in the pipe: an artifact is a finding.
  if compgen -G "build/fuzz/$name-*" >/dev/null; then
    echo "finding: $(ls build/fuzz/"$name"-*)"
    exit 1
  fi
done
