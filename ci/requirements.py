#!/usr/bin/env python3
"""Ties every requirement to the tests that show it.

`.specs/10-requirements.md` holds the ids, `.specs/not-built.txt` those that are not built yet. A test names what it shows with
`covers: ID ID …` in a comment, or with the tag `@ID` in a feature file. Fails when

  * an id outside the not-built list has no test,
  * an id on the not-built list has one,
  * a test, or the list, names an id that does not exist,
  * `covers:` names nothing at all,
  * a document that is written from all this (ci/documents.py) is stale.

Usage: ci/requirements.py [--write] [--table] [--self-test] [--root DIR]
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.dont_write_bytecode = True  # leave no folder beside the scripts
import documents

REQUIREMENT = re.compile(r"^- ([A-Z]+-[0-9]+) ", re.M)
COVERS = re.compile(r"\bcovers:\s*(.*)$")
ID = re.compile(r"[A-Z]+-[0-9]+")
ID_LIST = re.compile(r"[A-Z]+-[0-9]+(?:[\s,]+[A-Z]+-[0-9]+)*")
TAG = re.compile(r"(?:^|\s)@([A-Z]+-[0-9]+)\b")

# Where tests live, and which of their files are read.
PLACES = ("tests", "bdd", "worker/tests", "worker/src", "src", "benches", "fuzz", "examples", "cuda", "ci")
SUFFIXES = {".rs", ".feature", ".c", ".h", ".cu", ".cuh", ".py", ".sh", ".toml", ".txt", ".json", ""}
OUR_FILES = ("ci/requirements.py", "ci/documents.py")  # their own examples are not citations


def test_files(root):
    """The tracked (or, outside a repository, all) files that may cite a requirement."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "--", *PLACES],
        capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        names = sorted(set(listed.stdout.splitlines()))
    else:
        names = sorted(str(p.relative_to(root)) for place in PLACES for p in (root / place).rglob("*"))
    for name in names:
        path = root / name
        if path.suffix in SUFFIXES and name not in OUR_FILES and path.is_file():
            yield name, path


def citations(root):
    """Yields (id or None, file:line) for every citation; None stands for a `covers:` that names nothing."""
    for name, path in test_files(root):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            where = f"{name}:{number}"
            if path.suffix == ".feature" and line.lstrip().startswith("@"):
                for tag in TAG.findall(line):
                    yield tag, where
            found = COVERS.search(line)
            if found:
                ids = ID_LIST.match(found.group(1).strip())
                if ids is None:
                    yield None, where
                else:
                    for one in ID.findall(ids.group(0)):
                        yield one, where


def examine(root):
    """Returns (problems, id -> places, ids not built)."""
    problems = []
    known = REQUIREMENT.findall((root / ".specs/10-requirements.md").read_text(encoding="utf-8"))
    for one in sorted({k for k in known if known.count(k) > 1}):
        problems.append(f"{one} is defined twice in .specs/10-requirements.md")
    if not known:
        problems.append(".specs/10-requirements.md holds no requirement")

    not_built = {}
    listing = (root / ".specs/not-built.txt").read_text(encoding="utf-8")
    for number, line in enumerate(listing.splitlines(), 1):
        name, _, reason = (part.strip() for part in line.partition("#"))
        if not name:
            continue
        if name not in known:
            problems.append(f".specs/not-built.txt:{number}: {name} is no requirement")
        if name in not_built:
            problems.append(f".specs/not-built.txt:{number}: {name} is listed twice")
        if not reason:
            problems.append(f".specs/not-built.txt:{number}: {name} has no reason (`{name}  # why`)")
        not_built[name] = reason

    places = defaultdict(list)
    for one, where in citations(root):
        if one is None:
            problems.append(f"{where}: `covers:` names no requirement")
        elif one not in known:
            problems.append(f"{where}: {one} is no requirement")
        else:
            places[one].append(where)
    for one in known:
        if one in not_built and places[one]:
            problems.append(f"{one} is listed as not built, but {places[one][0]} covers it")
        if one not in not_built and not places[one]:
            problems.append(f"{one} has no test and is not listed in .specs/not-built.txt")
    return problems, {one: places[one] for one in known}, not_built


def self_test():
    """Plants one defect at a time and expects exactly its complaint; the sound tree must pass."""
    sound = {
        ".specs/10-requirements.md": "# List\n\n- AAA-1 One.\n- AAA-2 Two.\n- BBB-1 Three.\n",
        ".specs/not-built.txt": "# comment\nBBB-1  # later\n",
        "tests/one.rs": "// covers: AAA-1\n",
        "bdd/features/two.feature": "@AAA-2 @slow\nFeature: two\n",
    }
    cases = [
        (None, None, None),
        ("tests/one.rs", "", "AAA-1 has no test"),
        ("bdd/features/two.feature", "Feature: two\n", "AAA-2 has no test"),
        ("tests/more.rs", "// covers: AAA-1, BBB-1 both\n", "BBB-1 is listed as not built, but tests/more.rs:1"),
        ("tests/more.rs", "fn f() {} // covers: AAA-9\n", "tests/more.rs:1: AAA-9 is no requirement"),
        ("bdd/features/more.feature", "  @CCC-1\n", "bdd/features/more.feature:1: CCC-1 is no requirement"),
        ("tests/more.rs", "// covers: everything\n", "tests/more.rs:1: `covers:` names no requirement"),
        (".specs/not-built.txt", "BBB-1  # later\nAAA-7  # later\n", "not-built.txt:2: AAA-7 is no requirement"),
        (".specs/not-built.txt", "BBB-1\n", "BBB-1 has no reason"),
        (".specs/not-built.txt", "BBB-1  # a\nBBB-1  # b\n", "BBB-1 is listed twice"),
        (".specs/10-requirements.md", sound[".specs/10-requirements.md"] + "- AAA-1 Again.\n", "AAA-1 is defined twice"),
    ]
    wrong = []
    for name, content, expected in cases:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for path, text in {**sound, **({name: content} if name else {})}.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text, encoding="utf-8")
            problems, _, _ = examine(root)
        good = problems == [] if expected is None else len(problems) == 1 and expected in problems[0]
        if not good:
            wrong.append(f"planted {name!r} = {content!r}: expected {expected!r}, got {problems!r}")
    stale = self_test_of_documents(sound)
    wrong += stale
    for line in wrong:
        print(f"self-test: {line}", file=sys.stderr)
    print(f"requirements self-test: {len(cases) + 7 - len(wrong)} of {len(cases) + 7} cases as expected")
    return 1 if wrong else 0


def write(root, wanted):
    """Writes the documents."""
    for name, text in wanted.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def self_test_of_documents(sound):
    """The documents say what the tests say; each change of the tests makes them stale. Returns what went otherwise."""
    wrong = []

    def expect(what, true):
        if not true:
            wrong.append(f"documents: {what}")

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)

        def wanted():
            _, places, not_built = examine(root)
            return documents.documents(root, places, not_built)

        feature = "@AAA-2 @slow\nFeature: two\n  Why.\n\n  @AAA-1\n  Scenario Outline: so <n>\n    Given <n>\n\n" \
            "    Examples:\n      | n |\n      | 1 |\n      | 2 |\n"
        tests = "#[test]\nfn inside() {\n    // covers: AAA-1\n}\n// covers: AAA-1\n#[test]\nfn below() {}\n"
        for name, text in {**sound, "bdd/features/two.feature": feature, "tests/one.rs": tests}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        expect("missing ones are not found", len(list(documents.stale(root, wanted()))) == 2)
        write(root, wanted())
        expect("fresh ones are called stale", list(documents.stale(root, wanted())) == [])
        table = (root / documents.COVERAGE).read_text(encoding="utf-8")
        expect(f"tests are not named: {table}", "- [tests/one.rs](../tests/one.rs): `below`, `inside`\n" in table)
        expect(f"a scenario is not named: {table}", '[bdd/features/two.feature](../bdd/features/two.feature): "so <n>"\n' in table)
        expect(f"not built is not named: {table}", "### BBB-1\n\n- not built: later\n" in table)
        listed = (root / documents.BEHAVIOURS).read_text(encoding="utf-8")
        expect(f"the scenario is not listed: {listed}",
               "| all | 1 | 2 |" in listed and "- so <n> (2 examples): AAA-1, AAA-2, slow\n" in listed)
        (root / "bdd/features/two.feature").write_text(feature.replace("so <n>", "so"), encoding="utf-8")
        expect("stale ones are not found", len(list(documents.stale(root, wanted()))) == 2)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--write", action="store_true", help="write the documents anew")
    parser.add_argument("--table", action="store_true", help="print every id and the places that cover it")
    parser.add_argument("--self-test", action="store_true", help="check this script against planted defects")
    options = parser.parse_args()
    if options.self_test:
        return self_test()
    problems, places, not_built = examine(options.root)
    wanted = documents.documents(options.root, places, not_built)
    if options.write:
        write(options.root, wanted)
    problems += documents.stale(options.root, wanted)
    if options.table:
        for one, where in places.items():
            print(f"{one:8} {'not built: ' + not_built[one] if one in not_built else ' '.join(where) or '-'}")
    for problem in problems:
        print(f"requirements: {problem}", file=sys.stderr)
    built = len(places) - len(not_built)
    if not options.table:
        print(f"requirements: {len(places)} ids, {built} built, {len(not_built)} not built, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
