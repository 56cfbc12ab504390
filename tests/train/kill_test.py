#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A training run killed with SIGKILL at random moments ends in the bits of an uninterrupted one.

    kill_test.py CACHALOT [--kills N]

Each life of the killed run is left alone for a random number of steps and then for a random part of
one, so that kills also land between the checkpoint's write and its rename.
"""

import argparse
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import tiny_run

CHECKPOINT_STEPS = 3
STEPS_A_KILL = 6


def kill_at_random(command: list[str], run: pathlib.Path, rng: random.Random) -> bool:
    """Whether the process lived long enough to be killed."""
    # More steps than lie between two checkpoints: every life brings the run forward.
    enough = tiny_run.rows(run) // CHECKPOINT_STEPS * CHECKPOINT_STEPS + rng.randint(
        CHECKPOINT_STEPS + 1, STEPS_A_KILL)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while tiny_run.rows(run) < enough and process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
            sys.exit(f"no step {enough} within 120 s")
        time.sleep(0.002)
    time.sleep(rng.random() * 0.1)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cachalot")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    rng = random.Random(flags.seed)
    with tempfile.TemporaryDirectory(prefix="cachalot-kill-") as folder:
        base = pathlib.Path(folder)
        steps = (flags.kills + 1) * STEPS_A_KILL
        recipe = tiny_run.prepare(flags.cachalot, base, steps, CHECKPOINT_STEPS, micro_batches=2)

        def command(name: str) -> list[str]:
            return [flags.cachalot, "train", str(recipe), "--out", str(base / name)]

        quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command("straight"), **quiet)
        kills = sum(kill_at_random(command("killed"), base / "killed", rng)
                    for _ in range(flags.kills))
        subprocess.run(command("killed"), **quiet)
        assert kills == flags.kills, f"only {kills} of {flags.kills} kills hit (seed {flags.seed})"
        files = tiny_run.expect_same(base / "straight", base / "killed", f"seed {flags.seed}")
        print(f"{kills} kills in {steps} steps: {files} files identical")


if __name__ == "__main__":
    main()
