#!/usr/bin/env python3
"""Writes the corpora: what each target begins with, `corpus/TARGET/NAME`.

Known good inputs (the seals of tests/data/seal_vectors.txt, digests of tests/data/fsverity.txt, safetensors files and command
lines made here), and the same tampered with: cut, extended, one value changed to each side of a rule. No seed is empty: a fuzzer
tries the empty input by itself.

Usage: tests/fuzz/seeds.py [--check]     --check compares and writes nothing
"""

import json
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data"


def seals():
    """The seals of the vector file: message and tag."""
    found = []
    for block in (DATA / "seal_vectors.txt").read_text(encoding="utf-8").split("\n\n"):
        fields = dict(line.split(" = ") for line in block.splitlines() if " = " in line)
        if "message" in fields:
            found.append(bytes.fromhex(fields["message"]) + bytes.fromhex(fields["tag"]))
    assert len(found) >= 2, found
    return found


def tampered_seals(seal):
    """Each changed to one side of a rule. The offsets are those of a seal with one-byte names and no salt."""
    def with_bytes(at, new, old=None):
        return seal[:at] + new + seal[at + (len(new) if old is None else old):]
    yield "cut", seal[:-1]
    yield "tag-only", seal[-32:]
    yield "extended", seal + b"\0"
    yield "domain", with_bytes(0, b"V")
    yield "version", with_bytes(20, b"\2")
    yield "kind", with_bytes(22, b"\1")
    yield "kind-0", with_bytes(22, b"\0")
    yield "generation-0", with_bytes(63, bytes(8))
    yield "worker-empty", with_bytes(71, b"\0\0", 3)
    yield "worker-dots", with_bytes(71, b"\4\0a..b", 3)
    yield "worker-long", with_bytes(71, struct.pack("<H", 256) + b"w" * 256, 3)
    yield "worker-too-long", with_bytes(71, struct.pack("<H", 257) + b"w" * 257, 3)
    yield "shard-dot", with_bytes(76, b".")
    yield "model-ref", with_bytes(77, b"\1\0m", 2)
    yield "model-ref-beyond", with_bytes(77, b"\xff\xff")
    yield "set", with_bytes(79, bytes(15) + b"\1" + struct.pack("<II", 2, 3))
    yield "set-index", with_bytes(79, bytes(15) + b"\1" + struct.pack("<II", 3, 3))
    yield "set-of-none", with_bytes(79, bytes(15) + b"\1")
    yield "length-0", with_bytes(135, bytes(8))
    yield "block-1024", with_bytes(143, struct.pack("<I", 1024))
    yield "block-512", with_bytes(143, struct.pack("<I", 512))
    yield "block-65536", with_bytes(143, struct.pack("<I", 65536))
    yield "block-odd", with_bytes(143, struct.pack("<I", 4097))
    yield "salt-32", with_bytes(147, b"\x20\0" + bytes(32), 2)
    yield "salt-33", with_bytes(147, b"\x21\0" + bytes(33), 2)
    yield "origin-3", with_bytes(181, b"\3")
    yield "adopted", with_bytes(182, b"\1")
    yield "adopted-2", with_bytes(182, b"\2")


def corpus_seal():
    good = seals()
    for at, seal in enumerate(good):
        yield f"good-{at}", seal
    yield from tampered_seals(good[0])
    # What the target assembles into a seal: kind, worker (length, half or whole, character), shard, model reference, index,
    # count, length, block, odd, salt, origin, adopted, surplus. All zero is a good one.
    yield "assembled", bytes(18)
    yield "assembled-salt", bytes(14) + b"\x20" + bytes(3)
    yield "assembled-set", bytes(9) + b"\2\3" + bytes(7)
    yield "assembled-reference", bytes(7) + b"\x80\1\0\0" + bytes(9)


def corpus_seal_text():
    good = seals()
    for at, seal in enumerate(good):
        yield f"good-{at}", seal.hex().encode()
    text = good[0].hex()
    yield "upper-case", text.upper().encode()
    yield "odd", text[:-1].encode()
    yield "cut", text[:-2].encode()
    yield "space", (text + " ").encode()
    yield "prefixed", ("0x" + text).encode()
    yield "too-long", b"ab" * 2049


def corpus_forgery():
    yield "nothing-changed", b"\0\0\0"
    yield "and-back", b"\5\0\1\5\0\1"
    for name, at in [("domain", 0), ("ordinal", 39), ("epoch", 43), ("slot", 59), ("generation", 63), ("worker", 73)]:
        yield name, struct.pack("<HB", at, 1)
    yield "last-of-tag", struct.pack("<HB", 0xFFFF, 0x80)


def corpus_names():
    digest = (DATA / "fsverity.txt").read_text(encoding="utf-8").split()[-1]
    assert digest.startswith("sha256:") and len(digest) == 71, digest
    texts = {
        "digest": digest, "digest-upper": digest.upper(), "digest-cut": digest[:-1], "digest-long": digest + "0",
        "digest-sha512": digest.replace("sha256", "sha512"), "digest-bare": digest[7:], "digest-newline": digest + "\n",
        "digest-wide": digest[:-1] + "é", "name": "llama-8b.part-0", "name-1": "a", "name-256": "x" * 256,
        "name-257": "x" * 257, "name-dot": ".hidden", "name-dots": "a..b", "name-path": "../etc/passwd",
        "name-zero": "a\0b", "name-escape": "\x1b[31mred", "name-wide": "ä" * 128,
    }
    for name, text in texts.items():
        yield name, text.encode()


def model(header, data=b"", length=None):
    """A safetensors file; the byte before it chooses the block size."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return b"\0" + struct.pack("<Q", len(text) if length is None else length) + text + data


def corpus_safetensors():
    def tensor(dtype, shape, start, end):
        return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    two = {"__metadata__": {"format": "pt"}, "b": tensor("F32", [2, 3], 4, 28), "a": tensor("BF16", [2], 0, 4)}
    data = bytes(range(28))
    yield "two", model(two, data)
    yield "two-large-blocks", b"\6" + model(two, data)[1:]
    yield "nothing", model({})
    yield "empty-tensors", model({"z": tensor("U8", [0, 5], 4, 4), "y": tensor("U8", [0], 4, 4), "s": tensor("F4", [2, 4], 0, 4)}, data[:4])
    yield "scalar-padded-header", model(json.dumps({"s": tensor("F64", [], 0, 8)}).encode() + b"   ", data[:8])
    yield "cut", model(two, data)[:-1]
    yield "surplus", model(two, data + b"\0")
    yield "overlap", model({**two, "b": tensor("F32", [2, 3], 3, 27)}, data[:27])
    yield "gap", model({**two, "b": tensor("F32", [2, 3], 5, 29)}, data + b"\0")
    yield "shape-overflow", model({"a": tensor("F32", [2**64 - 1, 2], 0, 8)}, data[:8])
    yield "product-overflow", model({"a": tensor("F32", [2**61], 0, 8)}, data[:8])
    yield "offset-overflow", model({"a": tensor("F32", [2], 0, 2**64 - 1)}, data[:8])
    yield "twice", model(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")
    yield "twice-escaped", model(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b"xy")
    yield "half-byte", model({"a": tensor("F4", [3], 0, 1)}, b"x")
    yield "wrong-type", model({"a": tensor("F31", [1], 0, 4)}, b"xxxx")
    yield "metadata-number", model({"__metadata__": 7})
    yield "metadata-null", model({"__metadata__": None})
    yield "header-beyond", model({}, length=2**63)
    yield "header-none", model(b"")
    yield "header-not-utf8", model(b"\xff\xff")
    yield "header-array", model(b"[]")
    yield "short", b"\0" + bytes(7)


def corpus_safetensors_differential():
    def header(text, data=16):
        return struct.pack("<H", data) + text.encode()

    def entry(more="", dtype='"F32"', shape="[4]", offsets="[0,16]"):
        return f'{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}{more}}}'

    def with_field(value):
        return header(f'{{"a":{entry(f",{chr(34)}x{chr(34)}:{value}")}}}')
    fields = {
        "number": "1e308", "number-large": "1e999", "number-negative": "-1e999", "number-minus-0": "-0", "number-wide": "18446744073709551616",
        "text": '"\\ud83d\\ude00\\u0000"', "text-half": '"\\ud800"', "text-other-half": '"\\udc00"', "text-control": '"\n"',
        "key-half": '{"\\ud800":1}', "words": "[null,true,false,{}]", "words-wrong": "[nul]", "comma": "[1,]",
        "deep-125": "[" * 125 + "]" * 125, "deep-126": "[" * 126 + "]" * 126, "deep-objects": '{"y":' * 126 + "1" + "}" * 126,
    }
    for name, value in fields.items():
        yield name, with_field(value)
    for name, offsets in {"three": "[0,16,16]", "one": "[0]", "none": "[]", "object": "{}", "null": "null", "float": "[0,16.0]", "minus": "[-0,16]"}.items():
        yield f"offsets-{name}", header(f'{{"a":{entry(offsets=offsets)}}}')
    for name, shape in {"null": "null", "float": "[4.0]", "scalar": "4", "empty": "[]", "wide": "[18446744073709551616]", "two": "[2,2]"}.items():
        yield f"shape-{name}", header(f'{{"a":{entry(shape=shape)}}}')
    for name, dtype in {"object": '{"F32":null}', "object-empty": '{"F32":{}}', "number": "3", "escaped": '"F\\u00332"', "none": '"F33"', "list": '["F32"]'}.items():
        yield f"type-{name}", header(f'{{"a":{entry(dtype=dtype)}}}')
    yield "entry-list", header('{"a":["F32",[4],[0,16]]}')
    yield "entry-list-long", header('{"a":["F32",[4],[0,16],1]}')
    yield "entry-null", header('{"a":null}')
    yield "field-twice", header(f'{{"a":{entry(",{}shape{}:[4]".format(chr(34), chr(34)))}}}')
    yield "unknown-twice", header(f'{{"a":{entry(",{0}x{0}:1,{0}x{0}:2".format(chr(34)))}}}')
    yield "field-missing", header('{"a":{"dtype":"F32","shape":[4]}}')
    yield "name-twice", header(f'{{"a":{entry()},"a":{entry()}}}')
    yield "name-twice-escaped", header(f'{{"a":{entry()},"\\u0061":{entry(shape="[0]", offsets="[16,16]")}}}')
    yield "empty-at-one-place", header(f'{{"c":{entry(shape="[0]", offsets="[16,16]")},"b":{entry(shape="[0,3]", offsets="[16,16]")},"a":{entry()}}}')
    yield "two-types", header(f'{{"b":{entry(dtype=chr(34) + "BF16" + chr(34), shape="[2,4]", offsets="[16,32]")},"a":{entry()}}}', 32)
    yield "half-bytes", header(f'{{"a":{entry(dtype=chr(34) + "F4" + chr(34), shape="[4,8]")}}}')
    yield "metadata", header(f'{{"__metadata__":{{"format":"pt","\\ud83d\\ude00":""}},"a":{entry()}}}')
    yield "metadata-null", header(f'{{"a":{entry()},"__metadata__":null}}')
    yield "metadata-twice", header(f'{{"__metadata__":null,"a":{entry()},"__metadata__":null}}')
    yield "metadata-number", header(f'{{"__metadata__":{{"format":1}},"a":{entry()}}}')
    yield "metadata-alone", header('{"__metadata__":{}}', 0)
    yield "padded", header(f' \t\n{{"a":{entry()}}}\r ')
    yield "behind", header(f'{{"a":{entry()}}}x')
    yield "list", header("[[]]", 0)


def corpus_command_line():
    lines = {
        "run": "run", "run-model": "run model.safetensors --json",
        "run-all": "run --layout=tensors --part-bytes=4096 --device=cuda:3 --executes=2 --block-size=1024 --headroom=0 --secret-file=key m",
        "run-expect": "run --expect sha256:" + "0a" * 32, "run-none": "run --executes 0", "run-many": "run --executes 18446744073709551616",
        "device-auto": "run --device auto", "device-mock": "run --device mock", "device-cuda": "run --device cuda",
        "device-large": "run --device cuda:4294967296", "device-negative": "run --device cuda:-1", "device-plus": "cuda:+1",
        "device-zeros": "run --device cuda:007",
        "digest": "digest a b", "digest-salt": "digest --salt 00fF --block-size 65536 --layout tensors -- --a",
        "digest-odd-salt": "digest --salt 0 a", "digest-long-salt": "digest a --salt " + "ab" * 33, "digest-nothing": "digest",
        "help": "--help", "version": "--version", "run-help": "run --help", "unknown": "serve", "twice": "run --json --json",
    }
    for name, line in lines.items():
        yield name, "\n".join(line.split()).encode()
    yield "empty-words", b"run\n\n"
    yield "wide", "run\n--device\ncuda:١".encode()


def corpora():
    makers = {name.removeprefix("corpus_"): maker for name, maker in globals().items() if name.startswith("corpus_")}
    made = {f"{target}/{name}": content for target, maker in makers.items() for name, content in maker()}
    assert all(made.values()) and len(set(made.values())) == len(made), "a seed is empty, or there twice"
    return made


def main():
    wanted = corpora()
    corpus = HERE / "corpus"
    present = {str(path.relative_to(corpus)): path.read_bytes() for path in corpus.rglob("*") if path.is_file()}
    if sys.argv[1:] == ["--check"]:
        differing = sorted(name for name in {*wanted, *present} if wanted.get(name) != present.get(name))
        for name in differing:
            print(f"error: tests/fuzz/corpus/{name} is not what tests/fuzz/seeds.py writes", file=sys.stderr)
        print(f"corpora: {len(wanted)} seeds, {sum(map(len, wanted.values()))} bytes")
        return 1 if differing else 0
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    for name in present.keys() - wanted.keys():
        (corpus / name).unlink()
    for name, content in wanted.items():
        (corpus / name).parent.mkdir(parents=True, exist_ok=True)
        (corpus / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
