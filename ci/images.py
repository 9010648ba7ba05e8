#!/usr/bin/env python3
"""The kernel images in a file (an image itself, or a program that embeds them), against the interface of the kernels.

Usage: ci/images.py FILE [--architectures 80,86,…] [--self-test]

Every image must have exactly the entry points that cuda/include/vram_kernels.h names, each with one parameter of the size on which
that header and src/ffi/cuda/kernels.rs agree. With --architectures there must be exactly one image for each of them and no PTX, which a
driver would compile. --self-test damages a copy of the file in memory, and must find it.
"""
# covers: DEV-2 DEV-6

import argparse
import re
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CUDA = 190  # the machine in the header of such an image
PARAMETER_BYTES, PARAMETER = 0x19, 0x17  # attributes in `.nv.info.KERNEL`
PTX = b".visible .entry"


def interface():
    """Entry point -> bytes of its parameter, on which C and Rust must agree."""
    header = (ROOT / "cuda/include/vram_kernels.h").read_text(encoding="utf-8")
    mirror = (ROOT / "src/ffi/cuda/kernels.rs").read_text(encoding="utf-8")
    entries = {}
    for word, name in re.findall(r'^#define VRAM_([A-Z]+)(?:_[A-Z]+)? "(\w+)"$', header, re.M):
        word = word.lower()
        size = re.search(rf"sizeof\(vram_{word}_args\) == (\d+)", header)
        ours = re.search(rf"^layout!\({word.capitalize()}Args, (\d+),", mirror, re.M)
        if size is None or ours is None or size[1] != ours[1]:
            sys.exit(f"error: header and mirror do not agree on the parameter of {name}")
        entries[name] = int(size[1])
    if len(entries) != 4:
        sys.exit("error: vram_kernels.h has changed its form")
    return entries


def images(data):
    """Yields (architecture, {entry point: (parameters, bytes)}) for every image in the bytes."""
    at = data.find(b"\x7fELF\x02")
    while at >= 0:
        image = data[at:]
        if len(image) > 64 and struct.unpack_from("<H", image, 18)[0] == CUDA:
            yield examine(image)
        at = data.find(b"\x7fELF\x02", at + 1)


def examine(image):
    """Architecture and entry points of the image that the bytes begin with."""
    flags, = struct.unpack_from("<I", image, 48)
    architecture = flags >> 8 & 0xFF if image[8] >= 8 else flags & 0xFF
    table, = struct.unpack_from("<Q", image, 40)
    size, count, names = struct.unpack_from("<HHH", image, 58)
    sections = [struct.unpack_from("<IIQQQQ", image, table + size * i) for i in range(count)]
    strings = sections[names][4]

    def name(section):
        start = strings + section[0]
        return image[start:image.index(b"\0", start)].decode()

    bodies = {name(s): image[s[4]:s[4] + s[5]] for s in sections if s[1] != 8}
    code = {n.removeprefix(".text.") for n in bodies if n.startswith(".text.")}
    return architecture, {entry: parameters(bodies.get(f".nv.info.{entry}", b"")) for entry in code}


def parameters(info):
    """(number of parameters, bytes of all) from a kernel's attributes."""
    at = count = size = 0
    while at + 4 <= len(info):
        form, attribute, value = struct.unpack_from("<BBH", info, at)
        at += 4 + (value if form == 4 else 0)
        count += attribute == PARAMETER
        size = value if attribute == PARAMETER_BYTES else size
    return count, size


def problems(data, architectures):
    """What is wrong with the images in the bytes, in words."""
    expected = {name: (1, size) for name, size in interface().items()}
    found, wrong = list(images(data)), []
    if not found:
        wrong.append("there is no image")
    if architectures and sorted(a for a, _ in found) != sorted(architectures):
        wrong.append(f"images are for {sorted(a for a, _ in found)}, not for {sorted(architectures)}")
    if architectures and PTX in data:
        wrong.append("there is PTX")
    for architecture, entries in found:
        if entries != expected:
            wrong.append(f"sm_{architecture} has (parameters, bytes) {entries}, not {expected}")
    return wrong


def self_test(data, architectures):
    """Damages the bytes in one way at a time; returns how many ways were not found."""
    kernel = struct.pack("<BBH", 3, PARAMETER_BYTES, 96)
    ways = {
        "an entry point has another name": ("vram_finisx", data.replace(b".text.vram_finish", b".text.vram_finisx", 1)),
        "a parameter has another size": ("'vram_verity_leaves': (1, 88)", data.replace(kernel, kernel[:2] + b"\x58\0", 1)),
        "there is no image": ("there is no image", data.replace(b"\x7fELF\x02", b"\x7fELF\x01")),
    }
    if architectures:
        ways["an architecture is missing"] = ("images are for", data[:data.rindex(b"\x7fELF\x02")])
        ways["there is PTX"] = ("there is PTX", data + PTX)
    missed = 0
    for name, (expected, damaged) in ways.items():
        wrong = problems(damaged, architectures)
        if damaged == data or not any(expected in one for one in wrong):
            missed += 1
            print(f"self-test: {name} was not found: {wrong}", file=sys.stderr)
    print(f"images self-test: {len(ways) - missed} of {len(ways)} as expected")
    return missed


def main():
    """Examines the file."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("file", type=Path)
    options.add_argument("--architectures", default="", help="exactly these, by comma")
    options.add_argument("--self-test", action="store_true", help="damage a copy as well")
    given = options.parse_args()
    architectures = [int(a) for a in given.architectures.split(",") if a]
    data = given.file.read_bytes()
    wrong = problems(data, architectures)
    for line in wrong:
        print(f"{given.file}: {line}", file=sys.stderr)
    print(f"{given.file}: {len(list(images(data)))} images, {len(wrong)} problems")
    return 1 if wrong or (given.self_test and self_test(data, architectures)) else 0


if __name__ == "__main__":
    sys.exit(main())
