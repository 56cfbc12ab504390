# SPDX-License-Identifier: Apache-2.0
"""What the KV cache on disk does for a server and costs it: measured, printed, not timed tests.

    disk_load.py BINARY hits [MODEL [TOKENS...]]   each strategy: bytes written, then, after a restart,
                                                   bytes read, tokens computed and time to first token
    disk_load.py BINARY behind [MODEL [PAIRS]]     a running stream's pace while prompts are read and
                                                   written behind, against a server without the cache
"""
import statistics
import sys
import tempfile
import threading
import time

from load import endless, model_flags, quantile, token_times, words
from server import Server

STRATEGIES = ("zero", "periodic:4096", "full")


def prompt_ids(server, count, seed):
    return server.post("/tokenize", {"content": words(count, seed)})["tokens"][:count]


def first_token(server, prompt):
    """Seconds until the first token of the answer, and how many prompt tokens were not computed."""
    begin = time.monotonic()
    seconds = hit = None
    body = {"prompt": prompt, "max_tokens": 2, "temperature": 0,
            "stream_options": {"include_usage": True}}
    for event in server.stream("/v1/completions", body):
        if seconds is None and event.get("choices"):
            seconds = time.monotonic() - begin
        if event.get("usage"):
            hit = event["usage"]["prompt_cache_hit_tokens"]
    return seconds, hit


def run_hits(binary, arguments):
    counts = [int(a) for a in arguments[1:]] or [1024, 16384]
    flags = [*model_flags(arguments), "--max-context", str(max(counts) + 512), "--parallel", "1", "--quiet"]
    for count in counts:
        for strategy in STRATEGIES:
            with tempfile.TemporaryDirectory() as directory:
                disk = ["--kv-disk", directory, "--kv-swa", strategy]
                with Server(binary, *flags, *disk) as server:
                    first_token(server, words(40, 1))  # weights are read
                    prompt = prompt_ids(server, count, 2)
                    miss, _ = first_token(server, prompt)
                    assert server.end() == 0  # all that was queued is on disk then
                with Server(binary, *flags, *disk) as server:
                    first_token(server, words(40, 1))
                    stored = server.get("/v1/cache")["disk"]
                    before = server.metric("cachalot_kv_disk_read_bytes_total")
                    more = prompt + prompt_ids(server, 16, 3)
                    seconds, hit = first_token(server, more)
                    read = server.metric("cachalot_kv_disk_read_bytes_total") - before
                    print(f"{count} tokens, {strategy:13}: stored {stored['bytes'] / count:7.1f} bytes a token; "
                          f"hit: read {read / 1e6:.2f} MB, {len(more) - hit} of {len(more)} tokens computed, first "
                          f"token after {seconds * 1e3:.1f} ms; miss {miss * 1e3:.0f} ms ({miss / seconds:.1f} x)",
                          flush=True)


def pace(server, seed, seconds):
    """p95 between tokens of one stream while new prompts are sent one after the other."""
    times = []
    threading.Thread(target=token_times, args=(
        server, endless(max_tokens=4000, seed=seed), times), daemon=True).start()
    end = None
    prompts = begin = 0
    while end is None or time.monotonic() < end:
        server.post("/v1/completions", {"prompt": words(700, f"{seed} {prompts}"), "max_tokens": 1})
        prompts += 1
        if end is None and prompts == 5:  # caches are warm, and the first blocks are written
            end = time.monotonic() + seconds
            begin = len(times)
    intervals = [b - a for a, b in zip(times[begin:], times[begin + 1:])]
    return quantile(intervals, 0.95), prompts


def run_behind(binary, arguments):
    pairs = int(arguments[1]) if len(arguments) > 1 else 7
    flags = [*model_flags(arguments), "--max-context", "8192", "--parallel", "4", "--quiet"]
    ratios = []
    for i in range(pairs):
        p95 = {}
        for with_disk in ((False, True), (True, False))[i % 2]:
            with tempfile.TemporaryDirectory() as directory:
                disk = ["--kv-disk", directory, "--kv-swa", "periodic:4096"] if with_disk else []
                with Server(binary, *flags, *disk) as server:
                    p95[with_disk], prompts = pace(server, i, 6)
                    written = server.metric("cachalot_kv_disk_written_bytes_total") if with_disk else 0
                    if with_disk:
                        assert written > 0, "nothing was written behind"
                        print(f"pair {i}: {prompts} prompts, {written / 1e6:.1f} MB written", end="; ")
        ratios.append(p95[True] / p95[False])
        print(f"p95 {p95[False] * 1e3:.2f} ms without, {p95[True] * 1e3:.2f} ms with the cache on disk", flush=True)
    print(f"p95 ratio, median of {pairs} pairs: {statistics.median(ratios):.3f} (goal: at most 1.1)")


if __name__ == "__main__":
    {"hits": run_hits, "behind": run_behind}[sys.argv[2]](sys.argv[1], sys.argv[3:])
