"""A copy of the project whose text is changed and put back, and tests that should notice: what ci/removed-waits.py and
ci/planted-faults.py share, and the copy on which ci/mutants.py lets its tool work."""

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

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


class Tree:
    """A copy of the project in which text is changed and put back."""

    def __init__(self, folder, target, profile="test", environment=None):
        self.folder, self.target, self.profile, self.environment = folder, target, profile, environment or {}
        # With new times: what an earlier changed copy left in the target folder must not pass for this one.
        copy_to(folder)

    def apply(self, patches):
        """Applies the patches; returns what undoes them."""
        before = {}
        try:
            for patch in patches:
                path = self.folder / patch.path
                text = path.read_text(encoding="utf-8")
                before.setdefault(path, text)
                if text.count(patch.old) != 1:
                    raise LookupError(f"{patch.path} has {text.count(patch.old)} times: {patch.old.strip()!r}")
                path.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
        except LookupError:
            self.restore(before)
            raise
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
