#!/usr/bin/env python3
"""What a kernel image is made of, by pipe: reads `cuobjdump -sass` output on standard input.

Usage: cuobjdump -sass IMAGE | ci/kernels.py [--rows LABEL]

Prints one row for each entry point: instructions; and, for the loop that compresses, those that every thread executes for each 64
bytes: the longest straight stretch of code, which holds the 64 rounds. Integer pipe: logic, shifts, rotations, permutations, additions.
Multiply-add pipe: IMAD in all its forms. `ldg.128`: 16-byte loads in the whole kernel. `local`: accesses to local memory, which
a spill would make.
"""

import argparse
import re
import sys
from collections import Counter

INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);")
JUMPS = ("BRA", "BSSY", "CALL", "EXIT")
INTEGER = {"LOP3", "SHF", "PRMT", "IADD3", "IADD", "VIADD", "LEA", "ISETP", "SEL", "IMNMX", "VIADDMNMX", "BREV", "FLO"}
MULTIPLY_ADD = {"IMAD", "FFMA", "FMUL"}


def functions(lines):
    """Yields (name, [(address, operation, operands)])."""
    name, code = None, []
    for line in lines:
        if "Function : " in line:
            if name:
                yield name, code
            name, code = line.split("Function : ")[1].strip(), []
        elif name and (found := INSTRUCTION.match(line)):
            code.append((int(found[1], 16), found[2], found[3]))
    if name:
        yield name, code


def longest_stretch(code):
    """The longest run of instructions that nothing jumps out of or into."""
    targets = {int(at, 16) for _, operation, operands in code if operation.startswith(JUMPS)
               for at in re.findall(r"0x([0-9a-f]+)", operands)}
    best, run = [], []
    for address, operation, _ in code:
        if address in targets:
            run = []
        run.append(operation)
        if len(run) > len(best):
            best = list(run)
        if operation.startswith(JUMPS):
            run = []
    return best


def row(name, code):
    """The numbers of one kernel."""
    kinds = Counter(operation.split(".")[0] for _, operation, _ in code)
    stretch = Counter(operation.split(".")[0] for operation in longest_stretch(code))
    integer = sum(stretch[kind] for kind in INTEGER)
    multiply = sum(stretch[kind] for kind in MULTIPLY_ADD)
    wide = sum(operation.startswith("LDG") and ".128" in operation for _, operation, _ in code)
    rotates = stretch["SHF"] >= 500
    return {
        "entry": name, "all": len(code), "ldg.128": wide, "local": kinds["LDL"] + kinds["STL"],
        "stretch": sum(stretch.values()) if rotates else "-", "integer": integer if rotates else "-",
        "multiply-add": multiply if rotates else "-",
    }


def main():
    """Prints the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", metavar="LABEL", help="rows only, each beginning with LABEL")
    label = options.parse_args().rows
    rows = [row(name, code) for name, code in functions(sys.stdin)]
    if not rows:
        sys.exit("error: no machine code on standard input")
    if label is None:
        print("  ".join(rows[0]))
    for numbers in rows:
        print(f"{label or '':<14}{numbers['entry']:<22}" + "".join(f"{value:>14}" for value in list(numbers.values())[1:]))


if __name__ == "__main__":
    main()
