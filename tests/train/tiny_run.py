# SPDX-License-Identifier: Apache-2.0
"""A training run of seconds for the tests beside this file: data, recipe, what it leaves."""

import hashlib
import pathlib
import subprocess

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TEXT = REPOSITORY / "models/mini/heldout.txt"

RECIPE = """
name = "tiny"
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
batch_tokens = {batch}
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


def prepare(cachalot: str, base: pathlib.Path, steps: int, every: int,
            micro_batches: int) -> pathlib.Path:
    """Writes tokenizer, data and recipe into `base`; returns the recipe."""
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([cachalot, "tokenizer", "train", "--vocab", "384", "--out",
                    f"{base}/tokenizer", str(TEXT)], **quiet)
    subprocess.run([cachalot, "data", "build", "-m", f"{base}/tokenizer", "--out",
                    f"{base}/data", str(TEXT)], **quiet)
    recipe = base / "recipe.toml"
    recipe.write_text(RECIPE.format(data=base / "data", steps=steps, half=steps // 2,
                                    qat=steps * 2 // 3, every=every,
                                    batch=192 * micro_batches))
    return recipe


def rows(run: pathlib.Path) -> int:
    """Steps that are in the metrics."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def digests(run: pathlib.Path) -> dict[str, str]:
    """Of everything a run leaves but its metrics, which hold times."""
    files = [p for p in run.rglob("*") if p.is_file() and not p.name.startswith("metrics.")]
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def losses(run: pathlib.Path) -> list[str]:
    """Step, tokens and loss of each row."""
    lines = (run / "metrics.csv").read_text().splitlines()
    return [",".join(line.split(",")[:3]) for line in lines]


def expect_same(want: pathlib.Path, got: pathlib.Path, what: str) -> int:
    """Every file has the same bytes, every step the same loss. Returns the number of files."""
    a, b = digests(want), digests(got)
    assert a.keys() == b.keys(), f"{what}: files differ: {a.keys() ^ b.keys()}"
    differing = [name for name in a if a[name] != b[name]]
    assert not differing, f"{what}: {differing} differ"
    assert losses(want) == losses(got), f"{what}: losses differ"
    return len(a)
