#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds what a decoded token costs to recorded values, on any machine and however loaded.

Usage: gate.py DECODE_GATE_BINARY [--record]

1. Instructions of decoding on the tiny model, counted by callgrind with the avx2 code (valgrind knows no
   AVX-512): within 3 % of tests/gates/recorded.json.
2. Bytes read, weights widened and multiply-adds of the matrix products on the best AVX-512 target this
   machine has: equal to what is recorded.

--record writes the values measured now; say in the commit why they changed. Exit code 77 without
valgrind or a recorded count: the first part is then not checked.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "golden/tiny-flash"
RECORDED = HERE / "recorded.json"
BAND = 0.03
# Prompt and decoded tokens. Under callgrind the prompt is the wait, 50 times native: just past 128, so
# that both kinds of compressed entries are there.
COUNTED = ("130", "8")
TRAFFIC = ("300", "24")
SKIPPED = 77


def instructions(binary: str) -> int | None:
    """Instructions inside CachalotGateDecode; None without valgrind."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None
    with tempfile.NamedTemporaryFile() as out:
        done = subprocess.run(
            [valgrind, "--tool=callgrind", "--collect-atstart=no",
             "--toggle-collect=CachalotGateDecode", f"--callgrind-out-file={out.name}", binary,
             str(MODEL), "avx2", *COUNTED], capture_output=True, text=True, check=False)
    collected = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode != 0 or collected is None:
        sys.exit(f"callgrind failed ({done.returncode}): {done.stderr}")
    return int(collected.group(1))


def traffic(binary: str) -> tuple[str, dict] | None:
    """Target and counters of the best AVX-512 target here; None on other machines."""
    for target in ("avx512-bf16", "avx512-vnni", "avx512"):
        done = subprocess.run([binary, str(MODEL), target, *TRAFFIC], capture_output=True, text=True,
                              check=False)
        if done.returncode == 0:
            return target, json.loads(done.stdout)
        if done.returncode != SKIPPED:
            sys.exit(f"decode_gate {target} failed ({done.returncode}): {done.stderr}")
    return None


def check_instructions(found: int | None, recorded: int | None) -> str | None:
    """What is wrong with the count, or None."""
    if found is None or recorded is None:
        return None
    change = found / recorded - 1
    print(f"instructions: {found} ({100 * change:+.2f} % of {recorded})")
    if abs(change) <= BAND:
        return None
    return (f"instructions of decode moved by {100 * change:+.1f} %, past {100 * BAND:.0f} %: "
            "explain it in the commit and run tests/gates/gate.py BINARY --record")


def check_traffic(found: tuple[str, dict] | None, recorded: dict) -> list[str]:
    """Counters that differ."""
    if found is None:
        print("traffic: no AVX-512 here, not checked")
        return []
    target, phases = found
    print(f"traffic on {target}: {json.dumps(phases)}")
    return [f"{phase}.{name}: {value}, recorded {recorded[phase][name]}"
            for phase, counters in phases.items() for name, value in counters.items()
            if value != recorded[phase][name]]


def main() -> None:
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--record"]):
        sys.exit(__doc__)
    binary = sys.argv[1]
    recording = len(sys.argv) == 3
    recorded = {} if recording else json.loads(RECORDED.read_text())
    expected = recorded.get("avx2_decode_instructions")
    counters = traffic(binary)
    count = instructions(binary) if recording or expected is not None else None
    if recording:
        if count is None or counters is None:
            sys.exit("recording needs valgrind and AVX-512")
        RECORDED.write_text(json.dumps(
            {"avx2_decode_instructions": count, "traffic": counters[1]}, indent=1) + "\n")
        return
    failures = check_traffic(counters, recorded["traffic"])
    moved = check_instructions(count, expected)
    failures += [moved] if moved else []
    for failure in failures:
        print(f"FAILED: {failure}")
    if failures:
        sys.exit(1)
    if count is None:
        print("SKIPPED: no valgrind or no recorded count, instructions not compared")
        sys.exit(SKIPPED)


if __name__ == "__main__":
    main()
