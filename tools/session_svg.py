#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs commands and draws what a terminal would show: the picture in the README.

Usage: tools/session_svg.py OUT.svg 'COMMAND' ['COMMAND' ...]

Each command runs in a shell with build/release/bin first on PATH; its standard output is drawn below
its prompt, wrapped at 100 columns. Nothing is edited. Standard library only.
"""

import os
import subprocess
import sys
import textwrap
from html import escape
from pathlib import Path

COLUMNS = 100
CHAR_WIDTH = 8.4
LINE_HEIGHT = 19
MARGIN = 16


def run(command: str) -> list[str]:
    """The prompt line and the command's output, wrapped."""
    env = {**os.environ, "PATH": f"{Path('build/release/bin').resolve()}:{os.environ['PATH']}"}
    result = subprocess.run(command, shell=True, env=env, capture_output=True, text=True, check=True)
    lines = [f"$ {command}"]
    for line in result.stdout.rstrip("\n").split("\n"):
        lines += textwrap.wrap(line, COLUMNS, drop_whitespace=False) or [""]
    return lines + [""]


def draw(lines: list[str]) -> str:
    """A dark terminal with one <text> a line."""
    width = int(COLUMNS * CHAR_WIDTH + 2 * MARGIN)
    height = LINE_HEIGHT * len(lines) + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#16181d"/>',
        '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" '
        'xml:space="preserve">',
    ]
    for i, line in enumerate(lines):
        color = "#7fd4a8" if line.startswith("$ ") else "#d8dce4"
        y = MARGIN + LINE_HEIGHT * (i + 1) - 5
        out.append(f'<text x="{MARGIN}" y="{y}" fill="{color}">{escape(line)}</text>')
    out += ["</g>", "</svg>", ""]
    return "\n".join(out)


def main() -> None:
    lines: list[str] = []
    for command in sys.argv[2:]:
        lines += run(command)
    Path(sys.argv[1]).write_text(draw(lines[:-1]))


if __name__ == "__main__":
    main()
