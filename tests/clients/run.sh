#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tests/clients/run.sh BINARY [test.mjs...]: the npm clients and the page against a running server.
# Installs the packages of package-lock.json into build/clients. Exit 77: skipped, and said why.
# CACHALOT_WEB=web tests the page's files from that folder instead of those in the binary.
set -euo pipefail
source=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?usage: run.sh BINARY [test.mjs...]}")
shift
work=$source/../../build/clients
skip() { echo "SKIPPED: the client tests need $1" >&2; exit 77; }

# It talks for as long as it may, which models/mini does not: streams have to be caught in the middle.
model=$source/../../../shared/models/mini
[ -d "$model" ] || skip "../shared/models/mini"
command -v node >/dev/null || skip "node (package nodejs)"
command -v npm >/dev/null || skip "npm (package npm)"
[ "$(node -p 'Number(process.versions.node.split(".")[0]) >= 18')" = true ] ||
  skip "node 18 or later, found $(node --version)"

mkdir -p "$work"
work=$(cd "$work" && pwd)
# One run at a time: they share the folder.
exec 9>"$work/.lock"
flock 9
if ! cmp -s "$source/package-lock.json" "$work/.installed"; then
  cp "$source/package.json" "$source/package-lock.json" "$work/"
  (cd "$work" && timeout 180 npm ci --ignore-scripts --no-audit --no-fund >npm.log 2>&1) || {
    tail -5 "$work/npm.log" >&2
    skip "the npm registry (npm ci failed, see above)"
  }
  cp "$source/package-lock.json" "$work/.installed"
fi
# Modules are looked up from where a test lies.
rm -f "$work"/*.mjs
cp "$source"/*.mjs "$work/"

export CACHALOT_KEY=sk-clients
"$binary" serve -m "$model" --port 0 --api-key "$CACHALOT_KEY" --quiet \
  --kv-disk "$work/kv" --kv-disk-min 128 \
  >"$work/server.out" 2>"$work/server.err" 9>&- &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true' EXIT
for _ in $(seq 300); do
  CACHALOT_URL=$(sed -n 's/^listening on //p' "$work/server.out")
  [ -n "$CACHALOT_URL" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$work/server.err" >&2; exit 1; }
  sleep 0.1
done
[ -n "$CACHALOT_URL" ] || { echo "the server did not listen within 30 s" >&2; exit 1; }
export CACHALOT_URL
[ -z "${CACHALOT_WEB:-}" ] || CACHALOT_WEB=$(realpath "$CACHALOT_WEB")

cd "$work"
[ $# -gt 0 ] || set -- *.test.mjs
# One file after the other: the abort tests watch what the whole server does.
node --test --test-concurrency=1 --test-reporter=spec "$@"
kill -0 "$server" || { echo "the server died:" >&2; cat "$work/server.err" >&2; exit 1; }
