#!/usr/bin/env python3
"""The layout digest of a safetensors file in the `tensors` layout, as .specs/30-seal-format.md defines it.

It trusts its input: what a reader must refuse is not refused here.

Usage: layout_digest.py FILE [BLOCK_SIZE]
"""

import hashlib
import json
import struct
import sys


def number(value):
    return struct.pack("<Q", value)


def text(value):
    encoded = value.encode("utf-8")
    return number(len(encoded)) + encoded


def layout_digest(path, block):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length).decode("utf-8"))
    header.pop("__metadata__", None)
    order = sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0].encode("utf-8")))
    end, tensors = 0, b""
    for name, tensor in order:
        start, stop = tensor["data_offsets"]
        offset = end if start == stop else -(-end // block) * block
        end = offset + stop - start
        shape = tensor["shape"]
        tensors += text(name) + text(tensor["dtype"]) + number(len(shape)) + b"".join(map(number, shape))
        tensors += number(offset) + number(stop - start)
    kind = b"\1"
    head = b"vram-residency layout v1" + kind + struct.pack("<I", block) + number(end) + number(len(order))
    return hashlib.sha256(head + tensors).hexdigest()


if __name__ == "__main__":
    print(layout_digest(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 4096))
