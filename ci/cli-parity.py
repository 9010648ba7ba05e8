#!/usr/bin/env python3
"""Holds `vram-worker digest` against `fsverity digest`, byte for byte, on random lengths, block sizes and salts.

Prints the seed; `--seed` repeats a run. Ends with a twin that must differ: one changed bit changes the digest.

covers: DIG-1

Usage: ci/cli-parity.py --worker PATH [--cases N] [--seed N]
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BLOCK_SIZES = [1 << power for power in range(10, 17)]
LONGEST = 40 << 20
FILES_PER_CALL = 8


def lengths(rng):
    """The lengths of the pool: every edge of a tree, then random ones of every magnitude."""
    edges = {0, 1, 2, 63, 64, 65}
    for size in BLOCK_SIZES:
        fan_out = size // 32
        for edge in (size, 2 * size, fan_out * size, 2 * fan_out * size):
            if edge < LONGEST:
                edges |= {edge - 1, edge, edge + 1}
    some = sorted(edges)
    return some + [int(2 ** rng.uniform(0, 25.3)) for _ in range(48)] + [rng.randrange(LONGEST) for _ in range(4)] + [LONGEST]


def output(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", required=True)
    parser.add_argument("--cases", type=int, default=560)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print(f"seed {options.seed}")
    began = time.monotonic()

    with tempfile.TemporaryDirectory() as folder:
        noise = rng.randbytes(LONGEST + 4096)
        pool = []
        for index, length in enumerate(lengths(rng)):
            # Names with spaces and dashes: the line must come out the same.
            path = Path(folder) / f"shard {index:03} - {length}.bin"
            start = rng.randrange(4096)
            path.write_bytes(memoryview(noise)[start:start + length])
            pool.append(str(path))

        compared, wrong = 0, 0
        while compared < options.cases:
            size = rng.choice(BLOCK_SIZES)
            salt = rng.randbytes(rng.choice([0, 0, 1, 8, 16, 31, 32, rng.randrange(33)]))
            files = rng.sample(pool, FILES_PER_CALL)
            if compared < len(pool):
                files = pool[compared:compared + FILES_PER_CALL]  # every length at least once
            theirs_flags = [f"--block-size={size}"] + ([f"--salt={salt.hex()}"] if salt else [])
            ours_flags = ["--block-size", str(size)] + (["--salt", salt.hex()] if salt else [])
            theirs = output(["fsverity", "digest", *theirs_flags, *files])
            ours = output([options.worker, "digest", *ours_flags, *files])
            if ours != theirs:
                wrong += 1
                print(f"FAILED: block size {size}, salt {salt.hex() or 'none'}\n  worker:   {ours}\n  fsverity: {theirs}",
                      file=sys.stderr)
            compared += len(files)

        # The twin: the same file with one bit changed.
        victim = Path(pool[0])
        victim.write_bytes(noise[:100_000])
        before = output([options.worker, "digest", str(victim)])
        with open(victim, "r+b") as file:
            file.seek(77_777)
            byte = file.read(1)[0]
            file.seek(77_777)
            file.write(bytes([byte ^ 0x10]))
        after = output([options.worker, "digest", str(victim)])
        if before == after or after != output(["fsverity", "digest", str(victim)]):
            wrong += 1
            print("FAILED: a changed bit did not change the digest as it should", file=sys.stderr)

    print(f"cli parity: {compared} files compared in {time.monotonic() - began:.0f} s, {wrong} calls differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
