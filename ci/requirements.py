#!/usr/bin/env python3
"""Ties the requirements (.specs/10-requirements.md) to tests: ci/requirements.py [--table]

A test names what it shows: `covers: ID ID …` in a comment, `@ID` in a feature file. Fails when an id that is not in
.specs/not-built.txt has no test, one that is there has one or gives no reason, or an id is unknown. --table prints who shows what.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ID = re.compile(r"[A-Z]+-[0-9]+")
CITED = re.compile(r"\bcovers:\s*((?:[A-Z]+-[0-9]+[\s,]*)*)|(?:^|\s)@([A-Z]+-[0-9]+)\b")
PLACES = ["tests", "fuzz", "bdd", "worker", "src", "benches", "examples", "cuda", "ci", ":!ci/requirements.py", ":!*.md", ":!fuzz/corpus"]

known = re.findall(r"^- ([A-Z]+-[0-9]+) ", Path(".specs/10-requirements.md").read_text(encoding="utf-8"), re.M)
lines = [line.partition("#") for line in Path(".specs/not-built.txt").read_text(encoding="utf-8").splitlines()]
not_built = {name.strip(): reason.strip() for name, _, reason in lines if name.strip()}
wrong = [f"{one} is not in .specs/10-requirements.md" for one in not_built if one not in known]
wrong += [f"{one} is listed as not built without a reason" for one, reason in not_built.items() if not reason]
wrong += [f"{one} is there twice" for one in set(known) if known.count(one) > 1]

cited = defaultdict(set)
listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", *PLACES], capture_output=True, text=True, check=True)
for path in filter(Path.is_file, map(Path, listed.stdout.splitlines())):
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        for found in CITED.finditer(line):
            if found[2] and path.suffix != ".feature":
                continue
            ids = ID.findall(found[0])
            wrong += [f"{path}: `{line.strip()}` names no requirement" for one in ids or [""] if one not in known]
            for one in ids:
                cited[one].add(str(path))

wrong += [f"{one} is listed as not built, but {min(cited[one])} covers it" for one in not_built if cited[one]]
wrong += [f"{one} has no test and is not in .specs/not-built.txt" for one in known if one not in not_built and not cited[one]]
if "--table" in sys.argv:
    print(*(f"{one}: {', '.join(sorted(cited[one])) or 'not built: ' + not_built.get(one, '?')}" for one in known), sep="\n")
print(*(f"error: {line}" for line in wrong), f"{len(known)} requirements, {len(not_built)} not built, {len(wrong)} problems", sep="\n")
sys.exit(1 if wrong or not known else 0)
