#!/usr/bin/env python3
"""The keyed check of one image, without its key derivation: `keyed.py KC KF FILE` prints level count, top and tag in hex.

KC and KF are 32 bytes in hex; FILE holds the image. A reference to read, slow on purpose. `35-keyed-check.md` explains it.
"""

import hashlib
import hmac
import struct
import sys

BLOCK = 4096
DOMAIN = b"vram-residency/keyed-tag/1\0"


def chacha20_block(key, counter, nonce):
    """RFC 8439, 2.3."""
    start = struct.unpack("<16I", b"expand 32-byte k" + key + struct.pack("<I", counter) + nonce)
    x = list(start)

    def quarter(a, b, c, d):
        for into, add, by in (a, b, 16), (c, d, 12), (a, b, 8), (c, d, 7):
            x[into] = (x[into] + x[add]) & 0xFFFFFFFF
            other = {a: d, c: b}[into]
            x[other] ^= x[into]
            x[other] = (x[other] << by | x[other] >> (32 - by)) & 0xFFFFFFFF

    for _ in range(10):
        for column in range(4):
            quarter(column, 4 + column, 8 + column, 12 + column)
        for column in range(4):
            quarter(column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(x, start)))


def level_key(kc, level):
    """The 1,028 words of a level's key: 1,024 for a block, 4 more for the second pass."""
    stream = b"".join(chacha20_block(kc, at, level.to_bytes(12, "little")) for at in range(65))
    return struct.unpack("<1028I", stream[:4112])


def hash_block(key, block):
    m = struct.unpack("<1024I", block.ljust(BLOCK, b"\0"))
    out = b""
    for shift in 0, 4:
        total = 0
        for i in range(0, 1024, 4):
            for j in i, i + 1:
                left = (m[j] + key[j + shift]) & 0xFFFFFFFF
                total += left * ((m[j + 2] + key[j + 2 + shift]) & 0xFFFFFFFF)
        out += struct.pack("<Q", total & 0xFFFFFFFFFFFFFFFF)
    return out


def top_of(kc, image):
    """The levels, and the one output of the last of them."""
    levels, data = 0, image
    while levels == 0 or len(data) > 16:
        key = level_key(kc, levels)
        data = b"".join(hash_block(key, data[at : at + BLOCK]) for at in range(0, len(data), BLOCK))
        levels += 1
    return levels, data


def tag_of(kf, image_bytes, levels, top):
    return hmac.new(kf, DOMAIN + struct.pack("<QII", image_bytes, BLOCK, levels) + top, hashlib.sha256).digest()


if __name__ == "__main__":
    kc, kf = bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2])
    with open(sys.argv[3], "rb") as file:
        content = file.read()
    if not content or len(kc) != 32 or len(kf) != 32:
        sys.exit("an image has at least one byte, and each key has 32")
    count, out = top_of(kc, content)
    print(count, out.hex(), tag_of(kf, len(content), count, out).hex())
