#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the commands of the README and holds the documents' links and file names to the tree.

Usage: docs_commands_test.py CACHALOT_BINARY

Every line of a ```sh block that starts with `cachalot` is run at the root of the repository and must
exit 0 with output. Every relative link in a Markdown file of ours must exist.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "tests/golden/README.md"]
DOCUMENTS += sorted(path for path in (ROOT / "docs").rglob("*.md") if "spec" not in path.parts)
TIMEOUT_S = 120


def commands(text: str) -> list[str]:
    """The `cachalot ...` lines of the text's ```sh blocks, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("cachalot ")]


def run_command(binary: str, line: str) -> str | None:
    """Why the command failed, or None."""
    arguments = [binary, *shlex.split(line, comments=True)[1:]]
    done = subprocess.run(arguments, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        return f"{line}: exit code {done.returncode}: {done.stderr.strip()}"
    return None if done.stdout.strip() else f"{line}: printed nothing"


def broken_links(path: Path) -> list[str]:
    """Relative links of a document whose target does not exist."""
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    return [f"{path.relative_to(ROOT)}: no {target}" for target in targets
            if "://" not in target and not (path.parent / target).exists()]


def missing_make_targets(text: str) -> list[str]:
    """`make X` mentioned in a document but absent from the Makefile."""
    known = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z0-9]+)", text, re.M))
    return [f"make {name}: not in the Makefile" for name in sorted(named - known)]


def main() -> None:
    failures: list[str] = []
    ran = 0
    for path in DOCUMENTS:
        text = path.read_text()
        failures += broken_links(path)
        if path.parent == ROOT:
            failures += missing_make_targets(text)
        for line in commands(text):
            ran += 1
            failure = run_command(sys.argv[1], line)
            failures += [failure] if failure else []
    if ran == 0:
        failures.append("no command found in any document: the test looks at the wrong thing")
    print("\n".join(failures) or f"{ran} commands, {len(DOCUMENTS)} documents, no failure")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
