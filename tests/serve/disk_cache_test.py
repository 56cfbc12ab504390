#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The KV cache on disk through the command line and the server.

Usage: disk_cache_test.py CACHALOT_BINARY
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from server import Server

TEXT = ("It was a bright cold day in April, and the clocks were striking thirteen. " * 40).strip()


def run(binary: str, *arguments: str, code: int = 0, text: str = "") -> str:
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, input=text,
                          check=False)
    assert done.returncode == code, (arguments, done)
    return done.stdout + (done.stderr if code else "")


def check_run_and_commands(binary: str, directory: str, parent: str) -> None:
    flags = ["run", "-p", TEXT, "-n", "8", "--temperature", "0", "--json"]
    plain = json.loads(run(binary, *flags))
    first = json.loads(run(binary, *flags, "--cache", directory))
    second = json.loads(run(binary, *flags, "--cache", directory))
    assert plain["ids"] == first["ids"] == second["ids"]
    # A state serves what goes on after it; the same prompt again is replayed from the blocks.
    longer = ["run", "-p", TEXT + " Winston", "-n", "4", "--temperature", "0", "--json"]
    assert json.loads(run(binary, *longer))["ids"] == \
        json.loads(run(binary, *longer, "--cache", directory))["ids"]
    stat = json.loads(run(binary, "cache", "stat", "-d", directory, "--json"))
    assert stat["record_bytes"] > 0 and len(stat["prefixes"]) == 1, stat
    assert stat["write_amplification"] >= 1 and stat["prefixes"][0]["hits"] > 0, stat
    listed = json.loads(run(binary, "cache", "list", "-d", directory, "--json"))
    assert any(one["hits"] > 0 for one in listed), listed
    key = listed[0]["key"]
    run(binary, "cache", "pin", key[:12], "-d", directory)
    assert json.loads(run(binary, "cache", "list", "-d", directory, "--json"))[0]["pinned"]
    assert "0 damaged" in run(binary, "cache", "verify", "-d", directory)
    archive = parent + "/prefixes.ckv"
    run(binary, "cache", "export", archive, "-d", directory)
    run(binary, "cache", "purge", "--all", "-d", directory)
    assert json.loads(run(binary, "cache", "stat", "-d", directory, "--json"))["record_bytes"] == 0
    run(binary, "cache", "import", archive, "-d", directory)
    again = json.loads(run(binary, "cache", "stat", "-d", directory, "--json"))
    assert again["record_bytes"] == stat["record_bytes"], (again, stat)
    third = json.loads(run(binary, *flags, "--cache", directory))
    assert third["ids"] == plain["ids"]
    check_damage(binary, directory, archive)


def check_damage(binary: str, directory: str, archive: str) -> None:
    """A damaged record is named and removed, a damaged export refused."""
    segment = sorted(Path(directory).glob("seg-*.kv"))[0]
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    assert "checksum" in run(binary, "cache", "verify", "-d", directory, code=4)
    assert "0 damaged" in run(binary, "cache", "verify", "-d", directory)
    data = bytearray(Path(archive).read_bytes())
    data[-100] ^= 1
    Path(archive).write_bytes(data)
    assert "at byte" in run(binary, "cache", "import", archive, "-d", directory, code=4)
    run(binary, "cache", "pin", "ffffffffffff", "-d", directory, code=3)
    run(binary, "cache", "stat", "-d", directory + "-none", code=3)


def check_bench(binary: str, directory: str) -> None:
    """What was filled and stored is what a request of the engine finds."""
    out = json.loads(run(binary, "cache", "bench", "-d", directory, "--tokens", "1k", "--repeats", "2",
                         "--first-token"))
    assert out["tokens_not_run"] == 1024 and out["first_token_computed"] == 1, out
    assert len(out["first_token_s"]) == 2 and min(out["first_token_s"]) > 0, out
    assert not Path(directory).exists()


def check_server(binary: str, directory: str) -> None:
    body = {"prompt": TEXT, "max_tokens": 6, "temperature": 0}
    answers = []
    for start in range(2):
        with Server(binary, "--kv-disk", directory) as server:
            reply = server.post("/v1/completions", body)
            answers.append(reply["choices"][0]["text"])
            if start == 1:
                assert server.metric("cachalot_kv_disk_restores_total") == 1
                assert server.metric("cachalot_kv_disk_tokens_reused_total") > 500
                refused = subprocess.run(
                    [binary, "serve", "--port", "0", "--kv-disk", directory],
                    capture_output=True, text=True, check=False)
                assert refused.returncode != 0 and "in use by process" in refused.stderr, refused
                run(binary, "cache", "stat", "-d", directory)  # to look is allowed
            assert server.end() == 0
    assert answers[0] == answers[1]


def check_chat(binary: str, directory: str) -> None:
    """A conversation goes on where it ended, and what was said is not computed again."""
    flags = ["chat", "--cache", directory, "--kv-disk-min", "128", "-n", "8", "--seed", "1",
             "--stats"]
    done = subprocess.run([binary, *flags], capture_output=True, text=True, input=TEXT + "\n",
                          check=False)
    assert done.returncode == 0, done
    done = subprocess.run([binary, *flags, "--resume"], capture_output=True, text=True,
                          input=" And then?\n", check=False)
    assert done.returncode == 0 and "reused" in done.stderr, done


def main() -> None:
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as parent:
        check_run_and_commands(binary, parent + "/run", parent)
        check_server(binary, parent + "/serve")
        check_chat(binary, parent + "/chat")
        check_bench(binary, parent + "/bench")
    print("ok")


if __name__ == "__main__":
    main()
