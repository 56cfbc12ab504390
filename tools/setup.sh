#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages of the given groups that are missing: tools/setup.sh build test check
set -euo pipefail
list="$(dirname "$0")/packages.txt"

missing=()
for group in "${@:-build}"; do
  for package in $(awk -v group="[$group]" '/^# \[/ { on = ($2 == group); next } /^#/ { next } on' "$list"); do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
done
# Some machines bring their own node and npm, unknown to dpkg.
if command -v npm >/dev/null; then missing=("${missing[@]/#npm/}"); fi
wanted=()
for package in "${missing[@]}"; do [ -n "$package" ] && wanted+=("$package"); done
[ ${#wanted[@]} -eq 0 ] && exit 0

echo "installing: ${wanted[*]}"
sudo=
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "not root and no sudo; ask an administrator for: apt-get install ${wanted[*]}" >&2
    exit 1
  }
  sudo=sudo
fi
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
