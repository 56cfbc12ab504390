#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of bench/compare.

Usage: bench_compare_test.py [CACHALOT_BINARY]

With a binary, a short benchmark of the repository's model is run and compared with itself, so that
the fields the script reads are those the command writes.
"""

import copy
import json
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPARE = ROOT / "bench/compare"
BINARY = sys.argv.pop(1) if len(sys.argv) > 1 else None

RESULT = {
    "format": "cachalot-bench", "version": 1, "model": "m", "numerics": "fast", "target": "scalar",
    "threads": 2, "runs": 5, "chunk": 512,
    "machine": {"cpu": "X", "read_bytes_per_s": 30e9, "f32_flop_per_s": 2e11,
                "bf16_flop_per_s": 4e11, "int8_op_per_s": 9e11},
    "memory": {"private_bytes": 200e6, "kv_bytes": 2e6},
    "prefill": [{"tokens": 512, "context": 512, "tokens_per_s": 80.0, "spread": 0.02}],
    "decode": [{"context": 512, "batch": 1, "tokens_per_s": 20.0, "spread": 0.02}],
}


def run(old: object, new: object, *flags: str) -> tuple[int, str]:
    """Exit code and output of the script over two values written as files."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("old.json", "new.json")]
        for path, value in zip(paths, (old, new)):
            path.write_text(value if isinstance(value, str) else json.dumps(value))
        done = subprocess.run([sys.executable, COMPARE, *paths, *flags], capture_output=True,
                              text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def changed(field: str, factor: float, spread: float = 0.02) -> dict:
    """RESULT with the speed of one kind multiplied."""
    result = copy.deepcopy(RESULT)
    result[field][0]["tokens_per_s"] *= factor
    result[field][0]["spread"] = spread
    return result


class Compare(unittest.TestCase):
    def test_equal_results_pass(self) -> None:
        code, text = run(RESULT, RESULT)
        self.assertEqual(code, 0, text)
        self.assertNotIn("SLOWER", text)

    def test_a_change_past_threshold_and_noise_counts(self) -> None:
        code, text = run(RESULT, changed("decode", 0.85))
        self.assertEqual(code, 1, text)
        self.assertIn("SLOWER", text)
        self.assertEqual(run(RESULT, changed("prefill", 0.85))[0], 1)

    def test_a_change_within_threshold_or_noise_does_not(self) -> None:
        self.assertEqual(run(RESULT, changed("decode", 0.92))[0], 0)
        self.assertEqual(run(RESULT, changed("decode", 0.85, spread=0.2))[0], 0)
        self.assertEqual(run(RESULT, changed("decode", 0.92), "--threshold", "0.05")[0], 1)

    def test_faster_is_said_and_passes(self) -> None:
        code, text = run(RESULT, changed("decode", 1.5))
        self.assertEqual(code, 0, text)
        self.assertIn("faster", text)

    def test_more_memory_fails(self) -> None:
        larger = copy.deepcopy(RESULT)
        larger["memory"]["private_bytes"] *= 1.2
        self.assertEqual(run(RESULT, larger)[0], 1)

    def test_other_settings_are_said(self) -> None:
        self.assertIn("threads: 2 -> 4", run(RESULT, {**RESULT, "threads": 4})[1])

    def test_what_cannot_be_compared_is_refused(self) -> None:
        self.assertEqual(run(RESULT, "{")[0], 2)
        self.assertEqual(run(RESULT, {"format": "else"})[0], 2)
        self.assertEqual(run(RESULT, {**RESULT, "version": 2})[0], 2)
        self.assertEqual(run(RESULT, {**RESULT, "decode": [], "prefill": []})[0], 2)


@unittest.skipIf(BINARY is None, "no binary given")
class Command(unittest.TestCase):
    def test_a_real_result_is_read(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            out, chart = Path(folder) / "out.json", Path(folder) / "chart.svg"
            table = subprocess.run(
                [BINARY, "bench", "--contexts", "32,256", "--fill", "64", "--batch", "1,3",
                 "--runs", "2", "--decode", "16", "--threads", "2", "--out", out, "--chart", chart],
                capture_output=True, text=True, check=False, cwd=ROOT)
            self.assertEqual(table.returncode, 0, table.stderr)
            result = json.loads(out.read_text())
            xml.etree.ElementTree.parse(chart)
        self.assertEqual([row["filled"] for row in result["prefill"]], [False, True])
        self.assertEqual([(row["context"], row["batch"]) for row in result["decode"]],
                         [(32, 1), (256, 1), (32, 3)])
        for row in result["decode"] + result["prefill"]:
            self.assertGreater(row["tokens_per_s"], 0)
            self.assertGreater(row["of_limit"], 0)
            self.assertAlmostEqual(sum(row["profile"].values()), 1.0, places=6)
        self.assertIn("of limit", table.stdout)
        bare = subprocess.run(
            [BINARY, "bench", "--contexts", "256", "--fill", "--runs", "1", "--decode", "16", "--json"],
            capture_output=True, text=True, check=False, cwd=ROOT)
        self.assertTrue(json.loads(bare.stdout)["prefill"][0]["filled"])
        code, text = run(result, result)
        self.assertEqual(code, 0, text)
        self.assertIn("decode at 256 x 1", text)

    def test_measuring_leaves_experts_the_room_of_a_budget(self) -> None:
        """What the machine's limits are read from counts, too, and must not be most of it."""
        ran = subprocess.run(
            [BINARY, "bench", "--memory", "600M,700M", "--contexts", "4", "--runs", "1", "--decode", "16"],
            capture_output=True, text=True, check=False, cwd=ROOT)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("resident", ran.stdout)


if __name__ == "__main__":
    unittest.main()
