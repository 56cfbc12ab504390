#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A training run killed with SIGKILL at random moments ends in the bits of an uninterrupted one.

    kill_test.py CACHALOT [--kills N]

Each life of the killed run is left alone for a random number of steps and then for a random part of
one, so that kills also land between the checkpoint's write and its rename.
"""

import argparse
import hashlib
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TEXT = REPOSITORY / "models/mini/heldout.txt"
CHECKPOINT_STEPS = 3
STEPS_A_KILL = 6

RECIPE = """
name = "killed"
[model]
vocab_size = 384
hidden_size = 64
num_hidden_layers = 3
num_hash_layers = 1
num_nextn_predict_layers = 1
num_attention_heads = 2
head_dim = 128
q_lora_rank = 32
o_lora_rank = 32
o_groups = 2
n_routed_experts = 4
num_experts_per_tok = 2
moe_intermediate_size = 32
sliding_window = 16
compress_ratios = [0, 4, 128, 0]
index_n_heads = 2
index_head_dim = 64
index_topk = 8
max_position_embeddings = 1024
[data]
train = "{data}"
validation = "{data}"
[schedule]
steps = {steps}
learning_rate = 1e-2
final_learning_rate = 1e-3
decay_steps = {half}
batch_tokens = 384
micro_batch_tokens = 192
[[schedule.stage]]
sequence_length = 192
attention = "dense"
[[schedule.stage]]
from_step = {half}
sequence_length = 192
attention = "sparse"
[precision]
qat = true
qat_from_step = {qat}
[checkpoint]
every_steps = {every}
keep_last = 2
[evaluation]
every_steps = 8
tokens = 192
"""


def rows(run: pathlib.Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def digests(run: pathlib.Path) -> dict[str, str]:
    """Of everything a run leaves but its metrics, which hold times."""
    files = [p for p in run.rglob("*") if p.is_file() and not p.name.startswith("metrics.")]
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def losses(run: pathlib.Path) -> list[str]:
    lines = (run / "metrics.csv").read_text().splitlines()
    return [",".join(line.split(",")[:3]) for line in lines]


def kill_at_random(command: list[str], run: pathlib.Path, rng: random.Random) -> bool:
    """Whether the process lived long enough to be killed."""
    # More steps than lie between two checkpoints: every life brings the run forward.
    enough = rows(run) // CHECKPOINT_STEPS * CHECKPOINT_STEPS + rng.randint(
        CHECKPOINT_STEPS + 1, STEPS_A_KILL)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while rows(run) < enough and process.poll() is None:
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
        tool = [flags.cachalot]
        quiet = {"check": True, "stdout": subprocess.DEVNULL}
        subprocess.run(tool + ["tokenizer", "train", "--vocab", "384", "--out",
                               f"{base}/tokenizer", str(TEXT)], **quiet)
        subprocess.run(tool + ["data", "build", "-m", f"{base}/tokenizer", "--out",
                               f"{base}/data", str(TEXT)], **quiet)
        steps = (flags.kills + 1) * STEPS_A_KILL
        recipe = base / "recipe.toml"
        recipe.write_text(RECIPE.format(data=base / "data", steps=steps, half=steps // 2,
                                        qat=steps * 2 // 3, every=CHECKPOINT_STEPS))

        def command(name: str) -> list[str]:
            return tool + ["train", str(recipe), "--out", str(base / name)]

        subprocess.run(command("straight"), stderr=subprocess.DEVNULL, **quiet)
        killed = base / "killed"
        kills = sum(kill_at_random(command("killed"), killed, rng) for _ in range(flags.kills))
        subprocess.run(command("killed"), stderr=subprocess.DEVNULL, **quiet)
        assert kills == flags.kills, f"only {kills} of {flags.kills} kills hit (seed {flags.seed})"
        want, got = digests(base / "straight"), digests(killed)
        assert want.keys() == got.keys(), f"files differ: {want.keys() ^ got.keys()}"
        differing = [name for name in want if want[name] != got[name]]
        assert not differing, f"seed {flags.seed}: {differing} differ"
        assert losses(base / "straight") == losses(killed), "metrics differ"
        print(f"{kills} kills in {steps} steps: {len(want)} files identical")


if __name__ == "__main__":
    main()
