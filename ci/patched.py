"""A copy of the project whose text is changed and put back, and tests that should notice: what ci/removed-waits.py and
ci/planted-faults.py share, and the copy on which ci/mutants.py lets its tool work."""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PACKAGE = "vram-residency"
LIMIT = 300  # seconds for the tests of one row; a test that hangs has noticed


@dataclass(frozen=True)
class Patch:
    """Text of a file that is there exactly once, and what stands in its place."""

    path: str
    old: str
    new: str


def listed():
    """The files of the project, with those that git does not know yet."""
    names = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                           capture_output=True, check=True).stdout.decode().split("\0")
    return sorted(name for name in names if name and (ROOT / name).is_file())


def copy_to(folder):
    """Makes `folder` a copy of the project. What has not changed since an earlier copy keeps its time, so that it is not built
    anew; what has changed, or was left changed, gets a new one."""
    names = listed()
    for name in names:
        new, old = (ROOT / name).read_bytes(), folder / name
        if not old.is_file() or old.read_bytes() != new:
            old.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, old)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and str(path.relative_to(folder)) not in set(names):
            path.unlink()


def changed(patches, read):
    """The texts of the patched files, by path; `read` gives a file's text by path. Every text that is replaced is there once."""
    texts = {}
    for patch in patches:
        text = texts.get(patch.path) or read(patch.path)
        if text.count(patch.old) != 1:
            raise LookupError(f"{patch.path} has {text.count(patch.old)} times: {patch.old.strip()!r}")
        texts[patch.path] = text.replace(patch.old, patch.new)
    return texts


def sources_of(target):
    """What a test target ("lib" for the unit tests) is made of, as one text."""
    paths = (ROOT / "src").rglob("*.rs") if target == "lib" else [ROOT / "tests" / f"{target}.rs", *(ROOT / "tests" / target).rglob("*.rs")]
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(paths) if path.is_file())


def fit(rows, read=lambda path: (ROOT / path).read_text(encoding="utf-8"), tests=sources_of):
    """Says which rows no longer fit the project: their text is not there, or a test that they name. Returns how many."""
    misfits = []
    for row in rows:
        for patches in filter(None, (row.patches, (*row.patches, *getattr(row, "also", ())))):
            try:
                changed(patches, read)
            except (LookupError, OSError) as problem:
                misfits.append(f"{row.name}: {problem}")
        misfits += [f"{row.name}: {target} has no test {name}" for target, names in row.tests.items()
                    for name in names if not re.search(rf"\bfn {name}\b", tests(target))]
    for line in sorted(set(misfits)):
        print(f"error: {line}")
    print(f"{len(rows)} rows, {len(set(misfits))} misfits")
    return len(set(misfits))


class Tree:
    """A copy of the project in which text is changed and put back."""

    def __init__(self, folder, target, profile="test", environment=None):
        self.folder, self.target, self.profile, self.environment = folder, target, profile, environment or {}
        # With new times: what an earlier changed copy left in the target folder must not pass for this one.
        copy_to(folder)

    def apply(self, patches):
        """Applies the patches; returns what undoes them."""
        texts = changed(patches, lambda path: (self.folder / path).read_text(encoding="utf-8"))
        before = {self.folder / path: (self.folder / path).read_text(encoding="utf-8") for path in texts}
        for path, text in texts.items():
            (self.folder / path).write_text(text, encoding="utf-8")
        return before

    @staticmethod
    def restore(before):
        """Undoes what `apply` did."""
        for path, text in before.items():
            path.write_text(text, encoding="utf-8")

    def cargo(self, tests, *rest, limit=None):
        """Runs `cargo test` for the test targets ("lib" for the unit tests)."""
        targets = [part for target in sorted(tests)
                   for part in (["--lib"] if target == "lib" else ["--test", target])]
        environment = {**os.environ, "CARGO_TARGET_DIR": str(self.target), "CARGO_TERM_COLOR": "never", "RUST_BACKTRACE": "0",
                       **self.environment}
        command = ["cargo", "test", "--locked", "--profile", self.profile, "-p", PACKAGE, "--no-fail-fast", *targets, *rest]
        with subprocess.Popen(command, cwd=self.folder, env=environment, text=True, start_new_session=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            try:
                out, err = running.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                # The test that hangs is a child of cargo: without its end it would go on for ever.
                os.killpg(running.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, running.returncode, out, err)

    def run(self, tests):
        """Builds, then runs the named tests: (names that failed, names that passed), or None where they hang."""
        built = self.cargo(tests, "--no-run")
        if built.returncode != 0:
            raise RuntimeError("it does not build:\n" + built.stderr[-3000:])
        names = [name for target in tests for name in tests[target]]
        try:
            ran = self.cargo(tests, "--", *names, limit=LIMIT)
        except subprocess.TimeoutExpired:
            return None
        results = re.findall(r"^test (\S+)(?: - should panic)? \.\.\. (?:.*\n)*?.*?\b(ok|FAILED)$", ran.stdout, re.M)
        done = {name.rsplit("::", 1)[-1]: word for name, word in results}
        failed = [name for name in names if done.get(name) == "FAILED"]
        passed = [name for name in names if done.get(name) == "ok"]
        if ran.returncode != 0 and not failed:
            failed = ["(the process)"]  # it aborted, or crashed, before it could say which
        return failed, passed

    def missing(self, rows):
        """The tests of these rows that do not pass on the tree as it is."""
        tests = {}
        for row in rows:
            for target, names in row.tests.items():
                tests.setdefault(target, []).extend(name for name in names if name not in tests.get(target, []))
        outcome = self.run(tests)
        return sorted(name for names in tests.values() for name in names if outcome is None or name not in outcome[1])

    def noticed(self, patches, tests):
        """In words who noticed the patches; empty when nobody did."""
        before = self.apply(patches)
        try:
            outcome = self.run(tests)
        finally:
            self.restore(before)
        if outcome is None:
            return f"a test hung for {LIMIT} s"
        return ", ".join(outcome[0])


def self_test():
    """Which rows fit."""
    texts = {"a.rs": "one two two", "b.rs": "three"}
    rows = {
        "fits": ((Patch("a.rs", "one", "six"), Patch("a.rs", "six", "ten")), {"t": ["known"]}, 0),
        "gone": ((Patch("a.rs", "four", ""),), {"t": ["known"]}, 1),
        "twice": ((Patch("b.rs", "three", ""), Patch("a.rs", "two", "")), {"t": ["known"]}, 1),
        "no-file": ((Patch("c.rs", "one", ""),), {"t": ["known"]}, 1),
        "no-test": ((Patch("b.rs", "three", ""),), {"t": ["know", "unknown"]}, 2),
    }

    def read(path):
        if path not in texts:
            raise FileNotFoundError(path)
        return texts[path]

    wrong = 0
    for name, (patches, tests, misfits) in rows.items():
        row = SimpleNamespace(name=name, patches=patches, tests=tests)
        with contextlib.redirect_stdout(io.StringIO()):
            found = fit([row], read, lambda target: "fn known() {}")
        if found != misfits:
            wrong += 1
            print(f"self-test: {name}: {found} misfits, not {misfits}", file=sys.stderr)
    print(f"patched self-test: {len(rows) - wrong} of {len(rows)} as expected")
    return 1 if wrong else 0


if __name__ == "__main__" and sys.argv[1:] == ["--self-test"]:
    sys.exit(self_test())
