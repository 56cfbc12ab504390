#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains variants of one recipe with several seeds and prints their last validation losses.

    tools/train_compare.py recipes/compare.toml --out runs/compare --seeds 3 [--variants mhc adamw]

A run goes to OUT/VARIANT-SEED, where a stopped comparison goes on. `cachalot plot` draws them.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys

# Text put in place of the recipe's line "# variant".
VARIANTS = {
    "mhc": "",
    "plain": '[residual]\nmap = "plain"\n',
    "unconstrained": '[residual]\nmap = "unconstrained"\n',
    "adamw": "[optimizer]\nmuon = false\n",
}


def write_recipe(text: str, variant: str, seed: int, rate: float | None,
                 path: pathlib.Path) -> None:
    text = text.replace("# variant\n", VARIANTS[variant])
    text = re.sub(r"(?m)^seed = \d+", f"seed = {seed}", text)
    if rate is not None:
        text = re.sub(r"(?m)^learning_rate = \S+", f"learning_rate = {rate}", text)
        text = re.sub(r"(?m)^final_learning_rate = \S+", f"final_learning_rate = {rate / 10}", text)
    path.write_text(text)


def last(run: pathlib.Path) -> tuple[float, float]:
    """The last validation loss, and the largest gain of the composite residual map."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["validation_loss"] for row in rows if "validation_loss" in row]
    return losses[-1], max(row["mhc_gain"] or 0 for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=pathlib.Path)
    parser.add_argument("--cachalot", default="build/release/bin/cachalot")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--threads", default="2")
    parser.add_argument("--adamw-rate", type=float, help="AdamW's learning rate, Muon's otherwise")
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    text = flags.recipe.read_text()
    for seed in range(1, flags.seeds + 1):
        for variant in flags.variants:
            run = flags.out / f"{variant}-{seed}"
            recipe = flags.out / f"{variant}-{seed}.toml"
            rate = flags.adamw_rate if variant == "adamw" else None
            write_recipe(text, variant, seed, rate, recipe)
            log = flags.out / f"{variant}-{seed}.log"
            with log.open("w") as out:
                done = subprocess.run([flags.cachalot, "train", str(recipe), "--out", str(run),
                                       "--threads", flags.threads], stderr=out)
            if done.returncode != 0:
                sys.exit(log.read_text().strip().splitlines()[-1])
    print("| variant | validation loss, mean (each seed) | largest gain |\n|---|---|---|")
    for variant in flags.variants:
        found = [last(flags.out / f"{variant}-{seed}") for seed in range(1, flags.seeds + 1)]
        values = [loss for loss, _ in found]
        each = ", ".join(f"{loss:.4f}" for loss in values)
        print(f"| {variant} | {statistics.mean(values):.4f} ({each}) | "
              f"{max(gain for _, gain in found):.3f} |")


if __name__ == "__main__":
    main()
