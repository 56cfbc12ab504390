# SPDX-License-Identifier: Apache-2.0
"""English prose out of Debian's r-cran-janeaustenr: six novels of Jane Austen (public domain; the
package around them is MIT).

The package keeps each novel as lines of an R character vector: chunks of the file Rdata.rdb, each
four bytes of decompressed length and a zlib stream of R's XDR serialization (version 3).
"""

import pathlib
import struct
import zlib

PACKAGE = "r-cran-janeaustenr"
DATA = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
# models/mini/heldout.txt begins here and goes on to the end: no run may train on it.
HELD_OUT_FROM = "Nothing was wanting on Mrs. Palmer's side that constant"

_HEADER = 14  # "X\n", format version, R versions
_STRING_VECTOR = 16  # STRSXP
_NO_STRING = 0xFFFFFFFF


def _strings(data: bytes) -> list[str]:
    """The elements of one serialized character vector."""
    (native,) = struct.unpack_from(">I", data, _HEADER)
    at = _HEADER + 4 + native
    kind, count = struct.unpack_from(">II", data, at)
    if kind & 0xFF != _STRING_VECTOR:
        raise ValueError(f"R type {kind & 0xFF}, expected a character vector")
    at += 8
    out = []
    for _ in range(count):
        _, size = struct.unpack_from(">II", data, at)
        at += 8
        if size == _NO_STRING:
            size = 0
        out.append(data[at:at + size].decode("utf-8", "replace"))
        at += size
    return out


def _novels(path: pathlib.Path) -> list[list[str]]:
    rest = path.read_bytes()
    novels = []
    while rest:
        stream = zlib.decompressobj()
        novels.append(_strings(stream.decompress(rest[4:])))
        rest = stream.unused_data
    return novels


def _paragraphs(lines: list[str]) -> list[str]:
    out: list[str] = []
    open_lines: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            open_lines.append(line.strip())
        elif open_lines:
            out.append(" ".join(open_lines))
            open_lines = []
    return out


def austen(root: pathlib.Path) -> tuple[list[str], list[str]]:
    """Paragraphs to train on and held-out ones, from the package unpacked at `root` ("/" if it is
    installed). Title pages and chapter headings are left out; only ASCII is kept."""
    path = root / DATA
    if not path.exists():
        raise SystemExit(f"{path}: not found; apt-get install {PACKAGE}, or apt-get download it, "
                         f"dpkg-deb -x it into a folder and name that with --root")
    all_paragraphs = []
    for novel in _novels(path):
        for paragraph in _paragraphs(novel):
            text = paragraph.encode("ascii", "ignore").decode().replace("_", "")
            if len(text) > 40 and not text.isupper():
                all_paragraphs.append(text)
    first = next(i for i, p in enumerate(all_paragraphs) if p.startswith(HELD_OUT_FROM))
    return all_paragraphs[:first], all_paragraphs[first:]
