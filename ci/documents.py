"""The documents that ci/requirements.py writes from the tests: which tests show which requirement, and what the feature files say.

Both are sorted and have one line for each thing, without line numbers, so that branches that add tests seldom meet in them.
"""

import re
from collections import defaultdict

COVERAGE = ".specs/55-coverage-of-requirements.md"
BEHAVIOURS = "bdd/BEHAVIORS.md"
WRITE = "ci/requirements.py --write"

# How the languages begin what a test is.
STARTS = {
    ".rs": re.compile(r"\bfn (\w+)"),
    ".py": re.compile(r"^\s*def (\w+)"),
    ".sh": re.compile(r"^(\w+)\(\) *\{"),
    ".feature": re.compile(r"^\s*Scenario(?: Outline)?: (.+?)\s*$"),
}
COMMENT = re.compile(r"^\s*(//|#\[|#(?!!)|@)")


def subject(root, where):
    """(file, what in it): the test that the citation at file:line belongs to; nothing stands for all of the file."""
    name, _, number = where.rpartition(":")
    lines = (root / name).read_text(encoding="utf-8", errors="replace").splitlines()
    at = int(number) - 1
    starts = STARTS.get("." + name.rpartition(".")[2])
    if starts is None:
        return name, ""
    # In the test's first lines, behind it on its line, or above it among comments, attributes and tags.
    before = at - 1
    while before > 0 and COMMENT.match(lines[before]):
        before -= 1
    here = starts.search(lines[at].partition("covers:")[0])
    above = starts.search(lines[before]) if before >= 0 and lines[before].rstrip().endswith("{") else None
    for found in (here, above):
        if found:
            return name, found[1]
    for line in lines[at + 1:]:
        found = starts.search(line)
        if found and not COMMENT.match(line):
            return name, found[1]
        if not COMMENT.match(line):
            break
    return name, ""


def coverage(root, places, not_built):
    """Which tests show which requirement: one line for each file, in the order of the ids."""
    def order(one):
        topic, _, number = one.partition("-")
        return topic, int(number)

    lines = [
        "# Which tests show which requirement", "",
        f"Written by `{WRITE}` from `covers:` in the tests and the tags of the feature files; do not edit. The requirements stand in",
        "[10-requirements.md](10-requirements.md), what is not built yet in [not-built.txt](not-built.txt). A file without names shows",
        "it as a whole.",
    ]
    topic = None
    for one in sorted(places, key=order):
        if order(one)[0] != topic:
            topic = order(one)[0]
            lines += ["", f"## {topic}"]
        lines += ["", f"### {one}", ""]
        if one in not_built:
            lines.append(f"- not built: {not_built[one]}")
        files = defaultdict(set)
        for where in places[one]:
            name, what = subject(root, where)
            files[name].add(what)
        for name in sorted(files):
            quote = '"{}"' if name.endswith(".feature") else "`{}`"
            named = ", ".join(quote.format(what) for what in sorted(files[name] - {""}))
            lines.append(f"- [{name}](../{name})" + (f": {named}" if named else ""))
    return "\n".join(lines) + "\n"


def scenarios(text):
    """(title, description, [(scenario, tags, examples)]) of a feature file; examples are rows, 1 for a plain scenario."""
    title, description, found, tags, common, row = "", [], [], [], [], None
    for line in text.splitlines():
        word = line.strip()
        if word.startswith("@"):
            tags += word.split()
        elif word.startswith("Feature:"):
            title, common, tags = word.partition(":")[2].strip(), tags, []
        elif match := STARTS[".feature"].match(line):
            found.append([match[1], sorted({*common, *tags}), 0 if "Outline" in line.partition(":")[0] else 1])
            tags, row = [], None
        elif word.startswith("Examples:"):
            row = 0
        elif row is not None and word.startswith("|"):
            found[-1][2] += 1 if row else 0
            row += 1
        elif title and not found and word and not word.startswith(("#", "Background", "Given", "And", "|", "*")):
            description.append(word)
    return title, " ".join(description), found


def behaviours(root):
    """What the feature files say: one line for each scenario, in the files' order."""
    topics = []
    for path in sorted((root / "bdd/features").glob("**/*.feature")):
        topics.append((path.relative_to(root / "bdd").as_posix(), *scenarios(path.read_text(encoding="utf-8"))))
    lines = [
        "# Behaviours", "",
        f"Written by `{WRITE}` from the feature files; do not edit. With each scenario stand the",
        "[requirements](../.specs/10-requirements.md) that it shows. An outline is run once for each of its examples.", "",
        "| topic | scenarios | runs |", "|---|---|---|",
    ]
    for name, title, _, found in topics:
        lines.append(f"| [{title}]({name}) | {len(found)} | {sum(runs for *_, runs in found)} |")
    everything = [one for *_, found in topics for one in found]
    lines.append(f"| all | {len(everything)} | {sum(runs for *_, runs in everything)} |")
    for _, title, description, found in topics:
        lines += ["", f"## {title}", "", *([description, ""] if description else [])]
        for scenario, tags, runs in found:
            shows = ", ".join(tag[1:] for tag in tags)
            lines.append(f"- {scenario}" + (f" ({runs} examples)" if runs > 1 else "") + (f": {shows}" if shows else ""))
    return "\n".join(lines) + "\n"


def documents(root, places, not_built):
    """File -> what it should hold."""
    return {COVERAGE: coverage(root, places, not_built), BEHAVIOURS: behaviours(root)}


def stale(root, wanted):
    """Which of the documents are not what they should be, in words."""
    for name, text in wanted.items():
        path = root / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            yield f"{name} is stale; run {WRITE}"
