#!/usr/bin/env python3
"""Writes the `tensors` image of a safetensors file: every tensor in file order, each but the last padded to a block with zeros.

`fsverity digest --block-size B IMAGE` of what this writes is the digest that sealing with `--layout tensors` must give. Written
from the format's description alone, so that it shares no code with the crate.

Usage: ci/materialise.py MODEL.safetensors IMAGE [--block-size B]      ci/materialise.py --self-test
"""

import argparse
import io
import json
import struct
import sys


def tensors(model):
    """Returns (offset of the data in the file, [(name, begin, end)] in file order)."""
    header_bytes, = struct.unpack("<Q", model.read(8))
    header = json.loads(model.read(header_bytes))
    header.pop("__metadata__", None)
    listed = sorted((*entry["data_offsets"], name) for name, entry in header.items())
    return 8 + header_bytes, [(name, begin, end) for begin, end, name in listed]


def materialise(model, image, block_size):
    """Copies every tensor of `model` into `image` at the next multiple of `block_size`; returns the image's length."""
    start, plan = tensors(model)
    length = 0
    for _, begin, end in plan:
        if begin == end:
            continue  # an empty tensor has no bytes to align
        padding = -length % block_size
        image.write(bytes(padding))
        length += padding
        model.seek(start + begin)
        left = end - begin
        while left:
            piece = model.read(min(left, 1 << 24))
            if not piece:
                raise SystemExit("error: the file ends before its last tensor")
            image.write(piece)
            left -= len(piece)
        length += end - begin
    return length


def self_test():
    data = bytes(range(10))
    header = json.dumps({
        "__metadata__": {"format": "pt"},
        "late": {"dtype": "U8", "shape": [4], "data_offsets": [6, 10]},
        "early": {"dtype": "U8", "shape": [6], "data_offsets": [0, 6]},
        "none": {"dtype": "U8", "shape": [0], "data_offsets": [6, 6]},
    }).encode()
    image = io.BytesIO()
    length = materialise(io.BytesIO(struct.pack("<Q", len(header)) + header + data), image, 8)
    good = image.getvalue() == data[:6] + b"\0\0" + data[6:] and length == 12
    print(f"materialise self-test: {'as expected' if good else 'WRONG: ' + image.getvalue().hex()}")
    return 0 if good else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("image", nargs="?")
    parser.add_argument("--block-size", type=int, default=4096)
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    if options.self_test:
        return self_test()
    if not options.model or not options.image:
        parser.error("give a model and an image")
    with open(options.model, "rb") as model, open(options.image, "wb") as image:
        print(f"{materialise(model, image, options.block_size)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
