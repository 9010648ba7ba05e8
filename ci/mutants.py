#!/usr/bin/env python3
"""Changes the library's deciding modules by machine, one small change (a mutant) at a time, and demands that a test notices each.

cargo-mutants makes the mutants of the files that .cargo/mutants.toml names, in a copy of the tree. Each is judged by the tests of
its file (`STAGES`), the likeliest first. A mutant that none notices is a failure, unless ci/mutants-explained.txt says why it
cannot be noticed; so is an entry there whose mutant does not exist, or is caught.

Verdicts are kept in the target folder: a mutant that was caught is not judged again while its file and the tests that judge it are
the same; one that survived always is. What those tests share (`tests/harness`, `tests/rig`) and the other files of the library are
not looked at: `--anew` forgets all verdicts.

Usage: ci/mutants.py [--slice K/N] [--minutes M] [--file PART] [--summary] [--anew] | --self-test
"""

import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.dont_write_bytecode = True  # leave no folder beside the scripts
from patched import ROOT, TARGET, copy_to

WORK = TARGET / "deep" / "mutants"
EXPLAINED = ROOT / "ci" / "mutants-explained.txt"
CONFIG = ROOT / ".cargo" / "mutants.toml"
BATCH = 8  # mutants judged by one call of the tool: what is lost when the run is ended
# Seconds for one mutant. Tests that hang have noticed: those that take this long, and five times as long as unchanged.
TESTS_LIMIT, BUILD_LIMIT = 40, 300

# By file: the modules of tests/suite, in stages; "lib:MODULE" for the unit tests of one module, "test:NAME" for another program.
# What one stage does not notice the next may. `flips` takes a minute and more in this profile: it is asked when all others have noticed nothing.
RECORDS = ("executions", "states", "freshness")
DEVICE = ("lying_device", "failing_device", "scratch", "shutdown")
STAGES = {
    "src/manager/verify.rs": (RECORDS, ("lib:manager",), ("audit", "shutdown"), DEVICE, ("flips",)),
    "src/manager/execution": (RECORDS, ("audit", "adoption", "shutdown"), ("flips",)),
    "src/memory/wipe.rs": (DEVICE,),
    "src/seal": (("lib:seal",), ("sets", "freshness", "adoption"), ("flips",)),
    "src/keys": (("lib:keys",), ("lib:seal",), ("audit",)),
    "src/shards": (("lib:shards",), RECORDS, ("audit", "adoption", "shutdown")),
    "src/capacity.rs": (("lib:capacity",), DEVICE),
    "src/manager/set.rs": (("sets",),),
    "src/manager/adopt.rs": (("adoption",),),
    "src/types/raw.rs": (("lib:manager",), ("adoption",)),
    "src/spec/options.rs": (RECORDS, ("audit", "adoption", "shutdown"), ("flips",)),
    "src/types/digest.rs": (("lib:digest",), ("sources",)),
    "src/digest": (("lib:digest",), ("lib:source",), ("sources", "adoption"), ("test:fsverity_parity",)),
}


UNIT_TESTS = "#[cfg(test)]\nmod tests {"


def sources(root, target):
    """What judges, as text: a file and folder of tests/suite or of tests, or the unit tests of a module and of those within it."""
    kind, _, module = target.partition(":")
    folder, name = {"lib": ("src", module), "test": ("tests", module)}.get(kind, ("tests/suite", target))
    for path in [root / folder / f"{name}.rs", *sorted((root / folder / name).rglob("*"))]:
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            tests_only = kind != "lib" or "tests" in path.relative_to(root).with_suffix("").parts
            yield text if tests_only else text.partition(UNIT_TESTS)[2]


@functools.cache
def state(name, root=ROOT):
    """A hash of a source file without its unit tests, and of the tests that judge it."""
    parts = [(root / name).read_text(encoding="utf-8").partition(UNIT_TESTS)[0]]
    stages = next((stages for begin, stages in STAGES.items() if name.startswith(begin)), ())
    parts += [text for target in sorted({target for stage in stages for target in stage}) for text in sources(root, target)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def listed(tree):
    """Every mutant, by name without its position (a second one of that name has ` #2` behind it), most important file first."""
    out = subprocess.run(["cargo", "mutants", "-d", str(tree), "--list", "--json"], capture_output=True, text=True, check=True)
    mutants, seen = {}, Counter()
    for mutant in json.loads(out.stdout):
        short = re.sub(r"^([^:]+):\d+:\d+:", r"\1:", mutant["name"])
        seen[short] += 1
        mutants[short if seen[short] == 1 else f"{short} #{seen[short]}"] = mutant
    order = {part: at for at, part in enumerate(STAGES)}
    return dict(sorted(mutants.items(), key=lambda item: order[part(item[1])]))


def part(mutant):
    """The entry of STAGES for a mutant's file."""
    return next(part for part in STAGES if mutant["file"].startswith(part))


def explained():
    """The mutants that cannot be noticed, with the reason."""
    entries = {}
    for line in EXPLAINED.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, reason = line.partition(" | ")
            if not reason.strip():
                raise SystemExit(f"error: {EXPLAINED.name} gives no reason for {name}")
            entries[name.strip()] = reason.strip()
    return entries


# The mock hashes in C: unoptimised, as the profile has it, the tests take several times as long.
ENVIRONMENT = {**os.environ, "CFLAGS": "-O2", "CARGO_TARGET_DIR": str(WORK / "target"), "CARGO_TERM_COLOR": "never", "RUST_BACKTRACE": "0",
               "PROPTEST_CASES": "32", "PROPTEST_RNG_SEED": "1", "CARGO_INCREMENTAL": "1"}


def arguments_of(stage):
    """What cargo and the tests are told, to run the tests of one stage."""
    modules = [test.partition(":")[2] for test in stage if test.startswith("lib:")]
    if modules:
        # A filter finds its text anywhere in a name: devices have tests of the same modules' names, which judge other files.
        return ["--lib"], [*(f"{module}::" for module in modules), "--skip", "driver::"]
    if stage[0].startswith("test:"):
        return [arg for test in stage for arg in ("--test", test.removeprefix("test:"))], []
    return ["--test", "suite"], [f"{test}::" for test in stage]


@functools.cache
def unchanged(tree, stage):
    """How many seconds the stage's tests take when nothing is changed. They must pass then: else they would notice everything."""
    targets, filters = arguments_of(stage)
    command = ["cargo", "test", "--locked", "--profile", "mutants", "-p", "vram-residency", *targets]
    subprocess.run([*command, "--no-run"], cwd=tree, capture_output=True, env=ENVIRONMENT, check=False)
    began = time.monotonic()
    ran = subprocess.run([*command, "--", *filters], cwd=tree, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    if ran.returncode != 0 or not re.search(r"^test result: ok\. [1-9]", ran.stdout, re.M):
        raise SystemExit(f"error: these do not pass as it is: {stage}\n{ran.stdout[-3000:]}{ran.stderr[-3000:]}")
    return time.monotonic() - began


def judge(tree, batch, stage):
    """Lets the tool judge mutants by the tests of one stage: name -> outcome."""
    limit = max(TESTS_LIMIT, round(5 * unchanged(tree, stage)))
    names = {mutant["name"]: short for short, mutant in batch}
    wanted = [arg for name in names for arg in ("--re", f"^{re.escape(name)}$".replace(r"\ ", " "))]
    # The tool's `--re` lets every deleted field pass; the file's own list of exclusions must be said again.
    exclude = json.loads(re.search(r"^exclude_re = (\[.*?),\n\]", CONFIG.read_text(encoding="utf-8"), re.M | re.S)[1] + "]")
    exclude += [] if any("delete field" in name for name in names) else ["delete field"]
    wanted += [f"--exclude={pattern}" for pattern in exclude]
    targets, filters = arguments_of(stage)
    targets = [f"--cargo-arg={arg}" for arg in targets]
    filters = ["--", "--", *filters] if filters else []
    ran = subprocess.run(
        ["cargo", "mutants", "-d", str(tree), "--in-place", "--baseline=skip", "--no-shuffle", "--colors=never",
         f"--timeout={limit}", f"--build-timeout={BUILD_LIMIT}", "-o", str(WORK), *targets, *wanted, *filters],
        capture_output=True, text=True, env=ENVIRONMENT, check=False)
    done = {}
    try:
        outcomes = json.loads((WORK / "mutants.out" / "outcomes.json").read_text(encoding="utf-8"))["outcomes"]
    except (OSError, ValueError) as problem:
        raise SystemExit(f"error: cargo-mutants: {problem}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}") from problem
    for outcome in outcomes:
        if isinstance(outcome["scenario"], dict) and outcome["scenario"]["Mutant"]["name"] in names:
            short = names[outcome["scenario"]["Mutant"]["name"]]
            done[short] = {"CaughtMutant": "caught", "Timeout": "caught", "Unviable": "unviable",
                           "MissedMutant": "missed"}[outcome["summary"]]
    if set(done) != set(names.values()):
        raise SystemExit(f"error: cargo-mutants judged {len(done)} of {len(names)}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    return done


class Verdicts:
    """What was found, kept from run to run: each with the state of the file it was found on."""

    def __init__(self, anew):
        self.path = WORK / "verdicts.tsv"
        self.of = {}
        if anew:
            self.path.unlink(missing_ok=True)
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                name, verdict, seen = line.split("\t")
                if (ROOT / name.partition(":")[0]).is_file() and seen == state(name.partition(":")[0]):
                    self.of[name] = verdict

    def add(self, found):
        """Remembers verdicts."""
        self.of.update(found)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{name}\t{verdict}\t{state(name.partition(':')[0])}\n" for name, verdict in found.items())


def run(tree, mutants, verdicts, until):
    """Judges what has not been caught yet, stage by stage, until the time is over."""
    reasons = explained()
    todo = [(short, mutant) for short, mutant in mutants.items() if verdicts.of.get(short) not in ("caught", "unviable")]
    todo.sort(key=lambda item: item[0] in reasons)  # what is expected to survive comes last
    while todo and time.monotonic() < until:
        batch = [item for item in todo if part(item[1]) == part(todo[0][1])][:BATCH]
        todo = [item for item in todo if item not in batch]
        left, found = batch, {}
        for stage in STAGES[part(batch[0][1])]:
            if left:
                found.update(judge(tree, left, stage))
                left = [item for item in left if found[item[0]] == "missed"]
        verdicts.add(found)
        for short, _ in left:
            print(f"survived: {short}", flush=True)


def report(mutants, every, verdicts):
    """Prints what is known of the mutants; returns how many problems there are."""
    reasons = explained()
    outcome = {short: verdicts.of.get(short, "not run") for short in mutants}
    problems = [f"survived, and {EXPLAINED.name} does not say why: {short}"
                for short, verdict in outcome.items() if verdict == "missed" and short not in reasons]
    problems += [f"{EXPLAINED.name} explains what does not exist: {short}" for short in reasons if short not in every]
    problems += [f"{EXPLAINED.name} explains what is {verdicts.of[short]}: {short}"
                 for short in reasons if verdicts.of.get(short) in ("caught", "unviable")]
    for each in STAGES:
        count = Counter(verdict for short, verdict in outcome.items() if part(mutants[short]) == each)
        print(f"{each:20} " + "  ".join(f"{count[word]:4} {word}" for word in ("caught", "unviable", "missed", "not run")))
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    count = Counter(outcome.values())
    print(f"mutants: {len(mutants)} of {len(every)} generated; {count['caught']} caught, {count['unviable']} unviable, "
          f"{count['missed']} survived ({sum(short in reasons for short in mutants)} explained), {count['not run']} not run; "
          f"{len(problems)} problems")
    return len(problems) + count["not run"]


def self_test():
    """Which changes make a verdict stale."""
    tree = {"src/capacity.rs": f"one\n{UNIT_TESTS}\n}}\n", "src/keys.rs": "two", "src/keys/file.rs": "three", "src/keys/tests.rs": "four",
            "tests/suite/lying_device.rs": "five", "tests/suite/scratch.rs": "six", "tests/suite/audit.rs": "seven"}
    capacity = {"src/capacity.rs", "tests/suite/lying_device.rs", "tests/suite/scratch.rs"}
    keys, tests_of_keys = {"src/keys.rs", "src/keys/tests.rs", "tests/suite/audit.rs"}, {"src/keys/tests.rs", "tests/suite/audit.rs"}
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)

        def states():
            for name, text in tree.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text, encoding="utf-8")
            state.cache_clear()
            return [state(name, root) for name in ("src/capacity.rs", "src/keys.rs", "src/keys/file.rs")]

        before = states()
        for name, text in list(tree.items()):
            tree[name] = f"{text} changed"
            stale = [one != other for one, other in zip(states(), before)]
            if stale != [name in capacity, name in keys, name in tests_of_keys | {"src/keys/file.rs"}]:
                wrong.append(f"after a change of {name} stale are {stale}")
            tree[name] = text
    state.cache_clear()
    for line in wrong:
        print(f"self-test: {line}", file=sys.stderr)
    print(f"mutants self-test: {len(tree) - len(wrong)} of {len(tree)} as expected")
    return 1 if wrong else 0


def main(arguments):
    """Runs a slice."""
    if arguments == ["--self-test"]:
        return self_test()
    kth, slices, minutes, only = 1, 1, 55.0, ""
    summary, anew = arguments == ["--summary"], "--anew" in arguments
    options = iter([] if summary else [option for option in arguments if option != "--anew"])
    for option in options:
        if option == "--slice":
            kth, slices = (int(number) for number in next(options).split("/"))
        elif option == "--minutes":
            minutes = float(next(options))
        elif option == "--file":
            only = next(options)
        else:
            print(__doc__, file=sys.stderr)
            return 2
    began = time.monotonic()
    tree = WORK / "tree"
    copy_to(tree)
    every = listed(tree)
    mutants = dict(list(every.items())[kth - 1::slices])
    mutants = {short: mutant for short, mutant in mutants.items() if only in mutant["file"]}
    verdicts = Verdicts(anew)
    if not summary:
        run(tree, mutants, verdicts, began + 60 * minutes)
    return 1 if report(mutants, every, verdicts) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
