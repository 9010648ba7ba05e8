#!/usr/bin/env python3
"""Is there one set of gates? The commit hook, the public workflow and .ci/run all end in ci/check.sh, and the documents say so.

Usage: ci/gates.py [--self-test]

The hook runs steps that ci/check.sh has; the workflow runs .ci/run, which runs every step; each step has a row in .specs/50-testing.md,
and each row a step; CONTRIBUTING.md says how to install the hook; the workflow keeps every tool of ci/tools.txt.
"""
# covers: ASR-7

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECK, HOOK, RUN, FLOW = "ci/check.sh", "ci/hooks/pre-commit", ".ci/run", ".github/workflows/ci.yml"
TESTING, CONTRIBUTING, TOOLS = ".specs/50-testing.md", "CONTRIBUTING.md", "ci/tools.txt"
FILES = (CHECK, HOOK, RUN, FLOW, TESTING, CONTRIBUTING, TOOLS)


def problems(text):
    """What is wrong with the files (name -> text), in words."""
    wrong = []
    listed = re.search(r"^steps=\(\n(.*?)^\)", text[CHECK], re.M | re.S)
    extra = re.search(r"^extra=\((.*?)\)", text[CHECK], re.M)
    if listed is None or extra is None:
        return [f"{CHECK} has changed its form"]
    steps = listed[1].split() + extra[1].split()
    defined = re.findall(r"^step_(\w+)\(\)", text[CHECK], re.M)
    wrong += [f"{CHECK}: step {step} is not defined" for step in steps if step not in defined]
    wrong += [f"{CHECK}: step {step} is never run" for step in defined if step not in steps]
    hook = re.search(r"^exec ci/check\.sh( .+)$", text[HOOK], re.M)
    if hook is None:
        wrong.append(f"{HOOK} does not run {CHECK}")
    else:
        wrong += [f"{HOOK} runs {step}, which is no step" for step in hook[1].split() if step not in steps]
    if not re.search(r"^stage checks ci/check\.sh$", text[RUN], re.M):
        wrong.append(f"{RUN} does not run every step of {CHECK}")
    if not re.search(r"^\s+- run: \.ci/run$", text[FLOW], re.M):
        wrong.append(f"{FLOW} does not run {RUN}")
    wrong += [f"{FLOW} does not keep {tool}" for tool in re.findall(r"^(cargo-\S+)", text[TOOLS], re.M)
              if f"/bin/{tool}\n" not in text[FLOW]]
    if f"ln -s ../../{HOOK} .git/hooks/pre-commit" not in text[CONTRIBUTING]:
        wrong.append(f"{CONTRIBUTING} does not say how to install {HOOK}")
    _, _, table = text[TESTING].partition("## Steps of")
    rows = [name for row in re.findall(r"^\| (`.*?) \|", table.partition("\n## ")[0], re.M) for name in re.findall(r"`(\w+)`", row)]
    wrong += [f"{TESTING} has no row for {step}" for step in steps if step not in rows]
    wrong += [f"{TESTING} has a row for {row}, which is no step" for row in rows if row not in steps]
    return wrong


def self_test(text):
    """Plants one defect at a time; returns how many were not found."""
    planted = [
        (CHECK, "    fmt\n", "", "step fmt is never run"),
        (CHECK, "    fmt\n", "    fmt\n    fnt\n", "step fnt is not defined"),
        (HOOK, "exec ci/check.sh", "cargo test #", "does not run ci/check.sh"),
        (HOOK, " clippy ", " clipy ", "runs clipy"),
        (RUN, "stage checks ci/check.sh", "stage checks ci/check.sh fmt", "does not run every step"),
        (FLOW, "- run: .ci/run", "- run: cargo test", "does not run .ci/run"),
        (FLOW, "/bin/cargo-deny\n", "\n", "does not keep cargo-deny"),
        (CONTRIBUTING, "ln -s", "cp", "does not say how"),
        (TESTING, "| `deny` |", "| `denied` |", "has no row for deny"),
    ]
    missed = 0
    for name, old, new, expected in planted:
        changed = {**text, name: text[name].replace(old, new)}
        found = problems(changed)
        if changed == text or not any(expected in one for one in found):
            missed += 1
            print(f"self-test: planted {new!r} in {name}, found {found}", file=sys.stderr)
    print(f"gates self-test: {len(planted) - missed} of {len(planted)} as expected")
    return missed


def main():
    """Examines the files."""
    text = {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES}
    wrong = problems(text)
    for line in wrong:
        print(f"gates: {line}", file=sys.stderr)
    print(f"gates: {len(wrong)} problems")
    return 1 if wrong or ("--self-test" in sys.argv[1:] and self_test(text)) else 0


if __name__ == "__main__":
    sys.exit(main())
