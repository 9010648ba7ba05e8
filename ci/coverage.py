#!/usr/bin/env python3
"""Prints which lines and branches of the library ran, by file, and fails below the limits.

Counted are the files of src/ without their unit tests. A line or branch that ran in any suite has run.

Usage: ci/coverage.py LCOV [--missing FILE…]
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINES, BRANCHES = 95.0, 85.0  # percent


def only_tests():
    """The files that `#[cfg(test)] mod NAME;` brings in: they are tests."""
    found = set()
    for path in (ROOT / "src").rglob("*.rs"):
        beside = path.parent if path.name in ("lib.rs", "mod.rs") else path.with_suffix("")
        for name in re.findall(r"^#\[cfg\(test\)\]\n(?:#\[.*\]\n)*(?:pub.*)?mod (\w+);", path.read_text(encoding="utf-8"), re.M):
            found |= {beside / f"{name}.rs", beside / name / "mod.rs"}
    return found


def read(path):
    """By file of src/: lines (number -> ran) and branches (place -> ran)."""
    lines, branches = defaultdict(lambda: defaultdict(bool)), defaultdict(lambda: defaultdict(bool))
    name, last, tests = None, 0, only_tests()
    for record in path.read_text(encoding="utf-8").splitlines():
        kind, _, rest = record.partition(":")
        if kind == "SF":
            file = Path(rest)
            inside = file.is_relative_to(ROOT / "src") and file not in tests and "tests" not in file.relative_to(ROOT).parts
            name = str(file.relative_to(ROOT)) if inside else None
            if name:
                code = file.read_text(encoding="utf-8").partition("#[cfg(test)]\nmod tests {")[0]
                last = code.count("\n")
        elif name and kind == "DA":
            line, count = rest.split(",")[:2]
            if int(line) <= last:
                lines[name][int(line)] |= int(count) > 0
        elif name and kind == "BRDA":
            line, block, branch, count = rest.split(",")
            if int(line) <= last:
                branches[name][(int(line), block, branch)] |= count not in ("-", "0")
    return lines, branches


def percent(ran):
    """How much of it ran; all of nothing."""
    return 100.0 * sum(ran) / len(ran) if ran else 100.0


def main(arguments):
    """Prints the table, or the lines that a file misses."""
    lines, branches = read(Path(arguments[0]))
    if not lines:
        print("error: no file of src/ was measured", file=sys.stderr)
        return 1
    for name in arguments[2:] if arguments[1:2] == ["--missing"] else ():
        print(name, "lines", [line for line, ran in sorted(lines[name].items()) if not ran],
              "branches", sorted({place[0] for place, ran in branches[name].items() if not ran}))
    print(f"{'file':34} {'lines':>6} {'ran':>7} {'branches':>9} {'ran':>7}")
    for name in sorted(lines):
        line, branch = lines[name].values(), branches[name].values()
        print(f"{name:34} {len(line):6} {percent(line):6.1f}% {len(branch):9} {percent(branch):6.1f}%")
    line = percent([ran for each in lines.values() for ran in each.values()])
    branch = [ran for each in branches.values() for ran in each.values()]
    print(f"coverage: {line:.1f} % of {sum(map(len, lines.values()))} lines (at least {LINES:.0f}), "
          f"{percent(branch):.1f} % of {len(branch)} branches (at least {BRANCHES:.0f})")
    return 0 if line >= LINES and branch and percent(branch) >= BRANCHES else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
