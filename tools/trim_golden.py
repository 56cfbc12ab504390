#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Copies the part of the golden tiny-flash set that a clone carries (tests/golden/README.md).

Usage: tools/trim_golden.py ../shared/golden/tiny-flash tests/golden/tiny-flash

Keeps `exact` and `kv` results of prompts of at most 129 tokens and the greedy continuations; drops
`official`, longer prompts and the inner tensors. Standard library only.
"""

import json
import re
import shutil
import struct
import sys
from pathlib import Path

MAX_TOKENS = 129
COPIED_FILES = (
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
)


def keep(name: str) -> bool:
    """True for the tensors a clone carries."""
    if name.startswith("greedy."):
        return True
    match = re.fullmatch(r"(ids|mtp_next_ids|min_gap|(?:mtp_)?logits\.(?:exact|kv))\.(\d+)", name)
    return match is not None and int(match.group(2)) <= MAX_TOKENS


def trim(source: Path, target: Path) -> None:
    """Rewrites a safetensors file with only the kept tensors, in file order."""
    data = source.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    kept: dict[str, dict] = {}
    out = bytearray()
    for name, entry in header.items():
        if name == "__metadata__" or not keep(name):
            continue
        begin, end = entry["data_offsets"]
        kept[name] = {**entry, "data_offsets": [len(out), len(out) + end - begin]}
        out += body[begin:end]
    text = json.dumps(kept, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target.write_bytes(struct.pack("<Q", len(text)) + text + out)


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    for name in COPIED_FILES:
        shutil.copyfile(source / name, target / name)
    trim(source / "expected.safetensors", target / "expected.safetensors")


if __name__ == "__main__":
    main()
