#!/usr/bin/env python3
"""Runs the kernels' machine code without a GPU: run.py NVCC FOLDER.

Compiles them as build.rs does, to PTX and to the image for sm_90, translates both to C (ptx.py, sass.py), and runs random launches
under the checks of machine.c, against what OpenSSL says. PROPTEST_RNG_SEED chooses the launches. Each fault of PLANTED must be found.
"""

import ctypes
import ctypes.util
import hashlib
import os
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import ptx
import sass

sys.path.append(".specs")
import keyed

HERE = Path(__file__).parent
CASES = 150
POISON = b"\xee"
INITIAL = struct.pack("<8I", 0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
crypto = ctypes.CDLL(ctypes.util.find_library("crypto"))


class Wrong(Exception):
    pass


class Span(ctypes.Structure):
    _fields_ = [("at", ctypes.c_uint64), ("bytes", ctypes.c_uint64), ("host", ctypes.c_void_p), ("state", ctypes.c_void_p)]


class Memory:
    """Device memory of one launch: spans with gaps between them."""

    def __init__(self, rng):
        self.rng, self.top, self.spans, self.contents = rng, 0x7F00 << 32, [], []

    def place(self, state, content, wanted, at):
        state, content = (ctypes.create_string_buffer(bytes(one), len(wanted)) for one in (state, content))
        self.spans.append(Span(at, len(wanted), ctypes.addressof(content), ctypes.addressof(state)))
        self.contents.append((content, wanted, state))
        return at

    def room(self, size):
        self.top += 16 * self.rng.randint(4, 40)
        at, self.top = self.top, self.top + size + -size % 16
        return at

    def reads(self, content, skew=0, at=None):
        """The address of bytes that must stay as they are."""
        return self.place(b"\1" * len(content), content, content, at or self.room(len(content) + skew) + skew)

    def writes(self, wanted, known=range(0), before=b""):
        """The address of bytes that must become `wanted`; those in `known` are `before` at first, no others may be loaded."""
        content = bytearray(POISON * len(wanted))
        content[known.start : known.stop] = before
        return self.place((3 if i in known else 2 for i in range(len(wanted))), content, wanted, self.room(len(wanted)))

    def counters(self, covered, found):
        return self.writes(struct.pack("<QQ", covered, found), range(16), bytes(16))


def hash_shape(rng):
    """Block size, salt block, and what a kernel is told of them: state after the salt, size, bits, one."""
    size = 1024 << min(rng.randrange(7), rng.randrange(7))
    salt = rng.randbytes(rng.randint(1, 32)).ljust(64, b"\0") if rng.randrange(2) else b""
    start = ctypes.create_string_buffer(INITIAL, 256)
    if salt:  # the state is the first member of OpenSSL's context
        crypto.SHA256_Init(start)
        crypto.SHA256_Update(start, salt, 64)
    return size, salt, start.raw[:32] + struct.pack("<III", size, 8 * (size + len(salt)), 1)


def block_hashes(content, size, salt):
    blocks = (content[at : at + size].ljust(size, b"\0") for at in range(0, len(content), size))
    return [hashlib.sha256(salt + block).digest() for block in blocks]


def vram_verity_leaves(rng, memory):
    """Some blocks of some regions, and some that no region holds. Of a region that begins far below only the end is there."""
    size, salt, shape = hash_shape(rng)
    table, hashes = b"", []
    base = blocks = rng.choice([0, rng.randrange(1 << 34)])
    for number in range(rng.randint(1, 5)):
        content = bytearray(rng.randbytes(rng.randint(1, 40960 if size < 8192 else 3 * size)))
        content += bytes(-len(content) % size) if rng.randrange(3) == 0 else b""
        skew = rng.choice([0, rng.randrange(16)])
        before = rng.randrange(1 << 30) if number == 0 and base else 0
        address = memory.reads(bytes(content), skew)
        table += struct.pack("<QQQ", address - before * size, before * size + len(content), blocks)
        base += before
        hashes += block_hashes(bytes(content), size, salt)
        blocks = base + len(hashes)
    first = rng.randrange(len(hashes))
    count = rng.randint(1, len(hashes) - first + 3)
    done = hashes[first : first + count]
    out = memory.writes(b"".join(done).ljust(32 * count, POISON))
    head = memory.reads(table), len(table) // 24, base + first, count, out, memory.counters(len(done), 0)
    return struct.pack("<6Q", *head) + shape + bytes(4), -(-count // 128) + rng.randrange(2), 128, 1


def vram_verity_nodes(rng, memory):
    """The entries over leaf hashes, the last one short; or the one leaf hash itself."""
    size, salt, shape = hash_shape(rng)
    single = rng.randrange(5) == 0
    content = rng.randbytes(32 * (1 if single else rng.randint(1, 40 * 1024 // 32)))
    entries = [content] if single else block_hashes(content, size, salt)
    head = memory.reads(content), len(content) // 32, memory.writes(b"".join(entries)), memory.counters(0, len(entries))
    return struct.pack("<4Q", *head) + shape + struct.pack("<I", single), -(-len(entries) // 32) + rng.randrange(2), 32, 1


def vram_count_nonzero(rng, memory):
    """Few bytes that are not zero, or many, from any address."""
    content = bytearray(rng.randrange(rng.choice([64, 50000])))
    for at in rng.sample(range(len(content)), len(content) // rng.choice([1, 2, 50, 100000])):
        content[at] = rng.randrange(256)
    content = bytes(content)
    address = memory.reads(content, rng.randrange(16))
    counters = memory.counters(len(content), len(content) - content.count(0))
    return struct.pack("<3Q", address, len(content), counters), rng.randint(1, 3), 256, 2


def vram_keyed_level(rng, memory):
    """Some blocks of some regions, or of what the level below left."""
    shift, content = rng.randrange(10, 17), b""
    regions, read = b"", b""  # `read`: 1 for each byte that is no padding
    for _ in range(rng.randrange(5)):
        content, read = (one + bytes(-len(one) % (1 << shift)) for one in (content, read))
        more = rng.randbytes(rng.randint(1, 20000))
        address = memory.reads(more, rng.choice([0, rng.randrange(16)]))
        regions += struct.pack("<QQQ", address, len(more), len(content) >> shift)
        content, read = content + more, read + b"\1" * len(more)
    if regions:
        head = memory.reads(regions), len(regions) // 24, 0
    else:
        content = rng.randbytes(16 * rng.randint(1, 1000))
        head, read = (memory.reads(content), 0, len(content)), b"\1" * len(content)
    first = rng.randrange(-(-len(content) // keyed.BLOCK))
    count = min(rng.randint(1, 12), -(-len(content) // keyed.BLOCK) - first)
    blocks = [content[at * keyed.BLOCK :][: keyed.BLOCK] for at in range(first, first + count)]
    key, share = rng.randbytes(4112), rng.randint(1, 4)
    sums = b"".join(keyed.hash_block(struct.unpack("<1028I", key), block) for block in blocks)
    counters = memory.counters(read[first * keyed.BLOCK :][: count * keyed.BLOCK].count(1), count)
    given = *head, first, count, memory.reads(key), memory.writes(sums, range(len(sums)), bytes(len(sums))), counters, shift, share
    return struct.pack("<8QII", *given), -(-count // (4 * share)), 128, 2 * share + 2


def vram_finish(rng, memory):
    """The result, from counters beside it or in it."""
    counted, nonce = rng.randbytes(16), rng.randrange(1 << 64)
    result = struct.pack("<Q16sQ", nonce, counted, 0)
    if rng.randrange(2):
        address = memory.writes(result, range(8, 24), counted)
        return struct.pack("<3Q", address, address + 8, nonce), 1, 1, 0
    return struct.pack("<3Q", memory.writes(result), memory.reads(counted), nonce), 1, 1, 0


# A random launch of each entry point: (rng, memory) → arguments, thread blocks, threads of each, most atomic operations of a warp.
KERNELS = {make.__name__: make for make in (vram_verity_leaves, vram_verity_nodes, vram_keyed_level, vram_count_nonzero, vram_finish)}

# What is changed between dump and translation, and what must be found then.
PLANTED = [
    (ptx, vram_verity_leaves, r"\b1116352408\b", "1116352409", "wrong bytes"),
    (ptx, vram_verity_leaves, r"st\.global\.v4[^;]*;", "", "wrong bytes"),
    (ptx, vram_count_nonzero, r"(shfl\.sync.*\n\s*shfl\.sync[^,]*, %r\d+), %r\d+", r"\1, 3", "wrong bytes"),
    (ptx, vram_verity_leaves, r"(shfl\.sync[^;]*), %r\d+;", r"\1, 65535;", "shuffles a part"),
    (ptx, vram_verity_leaves, r"(@%p\d+) bra[^;]*;", r"\1 ret;", "shuffles apart"),
    (ptx, vram_count_nonzero, r"setp\.ge\.u64", "setp.gt.u64", "out of bounds"),
    (ptx, vram_verity_nodes, r"(ld\.global\.v4[^;]*)\+16\]", r"\1+8]", "misaligned"),
    (ptx, vram_keyed_level, r"(ld\.global\.v4[^;]*)\+16\]", r"\1+0]", "wrong bytes"),
    (ptx, vram_finish, r"(ld\.global[^;]*)\+8\]", r"\1+-8]", "loads what was never stored"),
    (ptx, vram_finish, r"(?s)(ld\.global\.u64[^;]*\[(%rd\d+)\];.*?st\.global\.u64\s+)[^,]*", r"\1[\2]", "stores where"),
    (ptx, vram_verity_nodes, r"(atom\.global[^;]*;)", r"\1 \1", "atomic operations"),
    (ptx, vram_count_nonzero, r"popc\.b32", "brev.b32", "not known"),
    (sass, vram_verity_leaves, r"0x428a2f98", "0x428a2f99", "wrong bytes"),
    (sass, vram_verity_leaves, r"STG\.E\.128 [^;]*", "NOP", "wrong bytes"),
    (sass, vram_count_nonzero, r"0x10, 0x1f", "0x3, 0x1f", "wrong bytes"),
    (sass, vram_keyed_level, r"(LDG\.E\.128[^;]*)\+0x10\]", r"\1+0x0]", "wrong bytes"),
    (sass, vram_verity_nodes, r"BSYNC B0", "NOP", "shuffles apart"),
    (sass, vram_finish, r"\[0x220\]", "[0x230]", "out of bounds"),
    (sass, vram_count_nonzero, r"POPC", "BREV", "not known"),
]


def compiled(nvcc, folder):
    """The dumps of the two images that are run, made as build.rs makes all of them."""
    script = Path("build.rs").read_text(encoding="utf-8")
    source = re.search(r'KERNEL_SOURCE: &str = "(.*)"', script)[1]
    flags = re.findall(r'"(.*?)"', re.search(r"KERNEL_FLAGS: .* = &\[(.*)\]", script)[1])
    oldest = re.search(r"PTX_ARCHITECTURE: u32 = (\d+)", script)[1]
    clean = {name: text for name, text in os.environ.items() if not name.startswith("NVCC_")}
    for kind, target in ("-ptx", f"arch=compute_{oldest},code=compute_{oldest}"), ("-cubin", "arch=compute_90,code=sm_90"):
        subprocess.run([nvcc, *flags, kind, "-gencode", target, source, "-o", folder / kind[1:]], check=True, env=clean)
    shown = subprocess.check_output([Path(nvcc).with_name("cuobjdump"), "-sass", folder / "cubin"], text=True)
    return (ptx, (folder / "ptx").read_text(encoding="utf-8")), (sass, shown)


def build(language, name, body, text):
    text.write_text('#include "machine.c"\n' + language.translate(name, body), encoding="utf-8")
    flags = ["-fPIC", "-shared", "-Wall", "-Werror", "-Wno-unused", "-Wno-unused-label", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["cc", *flags, f"-I{HERE}", text, "-o", text.with_suffix(".so")], check=True)
    library = ctypes.CDLL(text.with_suffix(".so"))
    library.launch.restype = ctypes.c_char_p
    return library


def run(library, name, rng):
    """One random launch. Returns how many operations were atomic."""
    memory, atomics = Memory(rng), ctypes.c_uint64()
    arguments, grid, threads, most = KERNELS[name](rng, memory)
    memory.reads(arguments, at=1 << 63)
    spans = (Span * len(memory.spans))(*memory.spans)
    said = library.launch(library[name], spans, len(spans), grid, threads, ctypes.byref(atomics)).decode()
    if said:
        raise Wrong(said)
    if atomics.value > most * grid * -(-threads // 32):
        raise Wrong(f"{atomics.value} atomic operations")
    if any(content.raw != wanted for content, wanted, _ in memory.contents):
        raise Wrong("wrong bytes")
    return atomics.value


def finds(language, name, body, text, found, rng):
    """Whether the fault in this body is found."""
    try:
        library = build(language, name, body, text)
    except SyntaxError as error:
        return found in str(error)
    for _ in range(CASES):
        try:
            run(library, name, rng)
        except Wrong as error:
            if found in str(error):
                return True
    return False


def main():
    nvcc, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    seed = os.environ.get("PROPTEST_RNG_SEED") or str(random.randrange(1 << 32))
    print(f"PROPTEST_RNG_SEED={seed}")
    for language, dump in compiled(nvcc, folder):
        kernels = language.split(dump)
        if set(kernels) != set(KERNELS):
            sys.exit(f"error: kernels {sorted(kernels)}, but launches are made for {sorted(KERNELS)}")
        for name, body in kernels.items():
            rng = random.Random(f"{seed} {name}")
            library = build(language, name, body, folder / f"{language.__name__}_{name}.c")
            try:
                atomics = sum(run(library, name, rng) for _ in range(CASES))
            except Wrong as error:
                sys.exit(f"error: {language.__name__} {name}: {error}")
            print(f"{language.__name__:4} {name}: {CASES} launches as they should be, {atomics} atomic operations")
        for number, (_, make, pattern, change, found) in enumerate(one for one in PLANTED if one[0] is language):
            name = make.__name__
            body, times = re.subn(pattern, change, kernels[name], count=1)
            text, rng = folder / f"{language.__name__}_{number}.c", random.Random(f"{seed} {number}")
            if times == 0 or not finds(language, name, body, text, found, rng):
                sys.exit(f"error: {language.__name__} {name}: {pattern} → {change} should be found: {found}")
        print(f"{language.__name__:4} planted faults: all found")


if __name__ == "__main__":
    main()
