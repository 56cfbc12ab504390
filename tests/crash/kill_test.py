#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kills a server with a KV cache on disk at random moments, again and again on one directory.

Usage: kill_test.py CACHALOT_BINARY [KILLS]

After each kill: the server starts within a second or so of an empty one, what it had acknowledged
(committed, by its own count) is still there, every record verifies, and the answer to each prompt is
that of a server without a cache.
"""
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "serve"))
from server import Server  # noqa: E402

PROMPTS = 4
WORDS = "the old house by the river had been empty for years and nobody knew why".split()


def prompt(index: int, length: int) -> str:
    """A text that shares its beginning with its neighbors."""
    noise = random.Random(index)
    shared = random.Random(7)
    words = [(shared if i < 300 else noise).choice(WORDS) for i in range(length)]
    return " ".join(words)


def ask(server: Server, text: str) -> str:
    body = {"prompt": text, "max_tokens": 4, "temperature": 0}
    return server.post("/v1/completions", body)["choices"][0]["text"]


def work(server: Server, texts: list[str], expected: dict, wrong: list) -> None:
    """Asks until the server dies."""
    while True:
        text = random.choice(texts)
        try:
            answer = ask(server, text)
        except Exception:  # pylint: disable=broad-except  # the kill, whatever it looks like
            return
        if answer != expected[text]:
            wrong.append(text)
            return


def acknowledged_blocks(server: Server) -> int:
    try:
        return server.get("/v1/cache")["disk"]["blocks"]
    except Exception:  # pylint: disable=broad-except  # it was killed meanwhile
        return 0


def main() -> None:
    binary = sys.argv[1]
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    texts = [prompt(i, 450 + 70 * i) for i in range(PROMPTS)]
    with Server(binary) as plain:
        expected = {text: ask(plain, text) for text in texts}
    wrong: list = []
    acknowledged = 0
    slowest = 0.0
    with tempfile.TemporaryDirectory() as parent:
        directory = parent + "/kv"
        strategies = ["full", "periodic:256", "zero"]
        for kill in range(kills):
            random.seed(kill)
            begin = time.monotonic()
            server = Server(binary, "--kv-disk", directory, "--kv-swa", strategies[kill % 3],
                            "--kv-disk-min", "128")
            slowest = max(slowest, time.monotonic() - begin)
            with server:
                found = server.get("/v1/cache")["disk"]["blocks"]
                assert found >= acknowledged, (kill, found, acknowledged)
                worker = threading.Thread(target=work, args=(server, texts, expected, wrong))
                worker.start()
                end = time.monotonic() + random.random() * 1.5
                while time.monotonic() < end:
                    acknowledged = max(acknowledged, acknowledged_blocks(server))
                    time.sleep(0.05)
                server.process.kill()
                worker.join()
            assert not wrong, (kill, wrong)
            if kill % 10 == 9:
                done = subprocess.run([binary, "cache", "verify", "-d", directory],
                                      capture_output=True, text=True, check=False)
                assert done.returncode == 0, done
        with Server(binary, "--kv-disk", directory) as server:
            for text in texts:
                assert ask(server, text) == expected[text], text
    print(json.dumps({"kills": kills, "acknowledged_blocks": acknowledged,
                      "slowest_start_s": round(slowest, 2), "wrong": len(wrong)}))


if __name__ == "__main__":
    main()
