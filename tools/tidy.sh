#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy on the .cc files that differ from BASE (default: origin/main, else the last commit).
set -euo pipefail
cd "$(dirname "$0")/.."
base=${BASE:-$(git rev-parse -q --verify origin/main || git rev-parse HEAD~1)}
mapfile -t changed < <(git diff --name-only --diff-filter=AM "$base" -- 'cachalot/*.cc')
[ ${#changed[@]} -eq 0 ] || clang-tidy-14 -p build/release --quiet "${changed[@]}"
