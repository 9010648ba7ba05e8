#!/usr/bin/env python3
"""Are the lints of Cargo.toml in force? Each is given something to refuse, in a package of its own under the workspace's lints.

Usage: ci/lints.py [--target-dir DIR]

clippy must refuse every line of `PLANTED`, by the name of its lint and as an error; a lint that Cargo.toml names without a line
there is a problem too, and so is a member of the workspace that does not take the workspace's lints. Without the planted lines
clippy must be content. The script examines itself: with any one lint taken out of the table, that lint and no other must be missed.
"""
# covers: ERR-1

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOUND = "//! Something to refuse.\n"
# Lint -> what it is there to refuse.
PLANTED = {
    "missing_docs": "pub const UNDOCUMENTED: u8 = 1;",
    "unsafe_code": "mod a { pub(super) unsafe fn unsafe_function() {} }",
    "unsafe_op_in_unsafe_fn": "mod b { pub(super) unsafe fn wide(at: *const u8) -> u8 { *at } }",
    "unreachable_pub": "mod c { pub fn wider_than_it_can_be() {} }",
    "clippy::arithmetic_side_effects": "fn sum(one: u64, other: u64) -> u64 { one + other }",
    "clippy::as_conversions": "fn cut(wide: u64) -> u8 { wide as u8 }",
    "clippy::expect_used": "fn expecting(one: Option<u8>) -> u8 { one.expect(\"one\") }",
    "clippy::indexing_slicing": "fn first(some: &[u8]) -> u8 { some[0] }",
    "clippy::multiple_unsafe_ops_per_block": "fn two(at: *const u8) -> (u8, u8) {\n    // SAFETY: none.\n    unsafe { (*at, *at) }\n}",
    "clippy::panic": "fn panicking() { panic!(\"here\") }",
    "clippy::todo": "fn to_do() { todo!() }",
    "clippy::unimplemented": "fn not_there() { unimplemented!() }",
    "clippy::undocumented_unsafe_blocks": "fn silent(at: *const u8) -> u8 {\n    unsafe { *at }\n}",
    "clippy::unreachable": "fn never() { unreachable!() }",
    "clippy::unwrap_used": "fn unwrapping(one: Option<u8>) -> u8 { one.unwrap() }",
}
# The compiler names these by the number of the error that they once were. In edition 2024 it only warns unless the lint is denied.
BY_NUMBER = {"E0133": "unsafe_op_in_unsafe_fn"}


def manifest(lints):
    """A package under a workspace's lints, in TOML."""
    tables = "".join(f"\n[workspace.lints.{tool}]\n" + "".join(f"{name} = {json.dumps(level)}\n" for name, level in of_tool.items())
                     for tool, of_tool in lints.items())
    return '[workspace]\n\n[package]\nname = "planted"\nversion = "0.0.0"\nedition = "2024"\n\n[lints]\nworkspace = true\n' + tables


def refused(folder, target, lints, text):
    """The lints that clippy calls errors in the text, and the errors that are no lint's."""
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "Cargo.toml").write_text(manifest(lints), encoding="utf-8")
    (folder / "src/lib.rs").write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "clippy.toml", folder)
    command = ["cargo", "clippy", "--offline", "--message-format", "json", "--target-dir", str(target)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    named, others = set(), []
    for message in (json.loads(line)["message"] for line in done.stdout.splitlines() if '"compiler-message"' in line):
        code = BY_NUMBER.get((message["code"] or {}).get("code"), (message["code"] or {}).get("code"))
        if message["level"] == "error" and code and not re.fullmatch(r"E\d+", code):
            named.add(code)
        elif message["level"] == "error" and not message["message"].startswith("aborting"):
            others.append(message["message"])
    if done.returncode != 0 and not named:
        others.append(done.stderr)
    return named, others


def without(lints, name):
    """The table without one lint."""
    tool, _, lint = name.rpartition("::")
    return {each: {key: level for key, level in table.items() if (each, key) != (tool or "rust", lint)}
            for each, table in lints.items()}


def problems(folder, target, lints):
    """What is wrong with the table, in words."""
    named, others = refused(folder, target, lints, SOUND)
    wrong = [f"clippy refuses the empty package: {each}" for each in [*sorted(named), *others]]
    named, others = refused(folder, target, lints, SOUND + "".join(f"{line}\n" for line in PLANTED.values()))
    wrong += [f"the planted lines do not build: {each}" for each in others]
    wrong += [f"clippy does not refuse what {name} is for" for name in PLANTED if name not in named]
    listed = [key if tool == "rust" else f"{tool}::{key}" for tool, table in lints.items() for key in table]
    return wrong + [f"nothing is planted for {name}" for name in listed if name not in PLANTED]


def main():
    """The table as it is, the members, and the table with one lint less."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--target-dir", type=Path, default=ROOT / "target")
    target = options.parse_args().target_dir.resolve()
    folder = target / "lints"
    shutil.rmtree(folder, ignore_errors=True)
    root = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    lints = root["workspace"]["lints"]
    wrong = problems(folder, target / "lints-target", lints)
    for member in [".", *root["workspace"]["members"]]:
        package = tomllib.loads((ROOT / member / "Cargo.toml").read_text(encoding="utf-8"))
        if package.get("lints") != {"workspace": True}:
            wrong.append(f"{member}/Cargo.toml does not take the workspace's lints")
    missed = 0
    for name in [] if wrong else PLANTED:
        found = problems(folder, target / "lints-target", without(lints, name))
        if found != [f"clippy does not refuse what {name} is for"]:
            missed += 1
            print(f"self-test: without {name}: {found}", file=sys.stderr)
    for line in wrong:
        print(f"lints: {line}", file=sys.stderr)
    print(f"lints: {len(PLANTED)} planted, {len(wrong)} problems, self-test: {missed} missed")
    return 1 if wrong or missed else 0


if __name__ == "__main__":
    sys.exit(main())
