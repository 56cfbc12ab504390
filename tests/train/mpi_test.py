#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training on 1, 2 and 4 ranks of mpirun gives the same bits, wherever the experts are; a lost rank
ends the job; what all ranks miss is said once.

    mpi_test.py CACHALOT

Five micro-batches a step: ranks have different shares, and of four ranks one has none.
"""

import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import tiny_run

STEPS = 12
CHECKPOINT_STEPS = 3


def mpirun(ranks: int, command: list[str]) -> list[str]:
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), *command,
            "--mpi", "--threads", "1"]


def children(pid: int) -> list[int]:
    path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def lose_a_rank(command: list[str], run: pathlib.Path) -> None:
    process = subprocess.Popen(mpirun(2, command), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while tiny_run.rows(run) < CHECKPOINT_STEPS + 1:
        assert process.poll() is None and time.monotonic() < deadline, "the run did not start"
        time.sleep(0.005)
    ranks = children(process.pid)
    assert len(ranks) == 2, ranks
    pathlib.Path(f"/proc/{ranks[1]}").stat()
    subprocess.run(["kill", f"-{int(signal.SIGKILL)}", str(ranks[1])], check=True)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0, "mpirun ended well without a rank"
    assert errors.count("exited on signal 9") == 1, errors


def say_once(command: list[str]) -> None:
    done = subprocess.run(mpirun(4, command), capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and done.stderr.count("cachalot: not found:") == 1, done


def main() -> None:
    cachalot = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="cachalot-mpi-") as folder:
        base = pathlib.Path(folder)
        recipe = tiny_run.prepare(cachalot, base, STEPS, CHECKPOINT_STEPS, micro_batches=5)

        def command(name: str) -> list[str]:
            return [cachalot, "train", str(recipe), "--out", str(base / name)]

        say_once([cachalot, "train", str(base / "no.toml")])
        print("what all ranks miss is said once")
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command("one"), **quiet)
        for experts in ("replicated", "distributed"):
            placed = ["--experts", experts]
            for ranks in (2, 4):
                name = f"{ranks} ranks, {experts} experts"
                subprocess.run(mpirun(ranks, command(name) + placed), **quiet)
                files = tiny_run.expect_same(base / "one", base / name, name)
                print(f"{name}: {files} files identical to those of one process")
            name = f"lost with {experts} experts"
            lose_a_rank(command(name) + placed, base / name)
            subprocess.run(command(name), **quiet)
            tiny_run.expect_same(base / "one", base / name, name)
            print(f"{name}: the job ended; one process went on to the same bits")


if __name__ == "__main__":
    main()
