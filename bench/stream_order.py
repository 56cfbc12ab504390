# SPDX-License-Identifier: Apache-2.0
"""Copies a checkpoint with its tensors in another order, to measure what the order costs to stream.

    stream_order.py MODEL OUT library    as the safetensors library writes: by type, then by name, so
                                         that an expert's matrices and its scales lie far apart
    stream_order.py MODEL OUT apart      the worst: tensors of the same kind together, so that every
                                         tensor of an expert is a read of its own
"""
import json
import os
import shutil
import struct
import sys

# The library's order of types is that of its enumeration, the widest first.
TYPES = ["I64", "F64", "F32", "BF16", "F16", "F8_E4M3", "F8_E8M0", "I8", "U8"]
ORDERS = {
    "library": lambda name, entry: (TYPES.index(entry["dtype"]), name),
    # ...experts.E.w1.weight: kind first, then the expert
    "apart": lambda name, entry: (name.split(".")[-2:], name),
}


def copy_shard(source, target, order):
    with open(source, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda item: order(*item))
        at = 0
        new = {} if metadata is None else {"__metadata__": metadata}
        for name, entry in entries:
            begin, end = entry["data_offsets"]
            new[name] = {**entry, "data_offsets": [at, at + end - begin]}
            at += end - begin
        text = json.dumps(new, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(target, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for _, entry in entries:
                begin, end = entry["data_offsets"]
                file.seek(8 + length + begin)
                out.write(file.read(end - begin))
            out.flush()
            os.fsync(out.fileno())
            os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main(model, out, order):
    os.makedirs(out, exist_ok=True)
    for name in sorted(os.listdir(model)):
        source, target = os.path.join(model, name), os.path.join(out, name)
        if name.endswith(".safetensors"):
            copy_shard(source, target, ORDERS[order])
        else:
            shutil.copy(source, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
