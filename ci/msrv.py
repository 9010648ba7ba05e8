#!/usr/bin/env python3
"""Does the workspace keep to the oldest compiler that it declares, as far as a newer compiler can tell?

Usage: ci/msrv.py [--target-dir DIR]

No package that a build for Linux uses, dev-dependencies included, declares a newer compiler; every package of the workspace declares
the workspace's own. And clippy, whose run over everything is a step of its own, is really watching: in a copy of the workspace with one
use of a newer standard library it must refuse, and without it pass. What this cannot tell: language newer than declared, and packages
that declare nothing; the step `msrv` builds with the compiler itself where it is installed.
"""

import argparse
import copy
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLANTED = """
/// Planted: stable since Rust 1.91.
#[must_use]
pub const fn planted() -> ::core::time::Duration {
    ::core::time::Duration::from_mins(1)
}
"""


def version(text):
    """`1.89` as (1, 89, 0)."""
    parts = [int(part) for part in text.split(".")]
    return tuple(parts + [0] * (3 - len(parts)))


def metadata():
    """What cargo says about the packages of a build for Linux."""
    done = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features", "--filter-platform", "x86_64-unknown-linux-gnu"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit("error: cargo metadata failed")
    return json.loads(done.stdout)


def problems(data, declared):
    """What declares a compiler that it must not, in words."""
    wrong, used = [], {node["id"] for node in data["resolve"]["nodes"]}
    for package in data["packages"]:
        name, needs = f"{package['name']} {package['version']}", package["rust_version"]
        if package["id"] in data["workspace_members"] and needs != declared:
            wrong.append(f"{name} declares {needs}, the workspace {declared}")
        elif package["id"] in used and needs and version(needs) > version(declared):
            wrong.append(f"{name} needs Rust {needs}, the workspace promises {declared}")
    return wrong


def self_test(data, declared):
    """Plants a newer compiler in a dependency and another one in a member; returns how many were not found."""
    missed = 0
    for place in (lambda p: p["source"] is not None and p["id"] in used, lambda p: p["id"] in data["workspace_members"]):
        used = {node["id"] for node in data["resolve"]["nodes"]}
        planted = copy.deepcopy(data)
        package = next(p for p in planted["packages"] if place(p))
        package["rust_version"] = "1.90.0"
        found = problems(planted, declared)
        if len(found) != 1 or not found[0].startswith(package["name"]):
            missed += 1
            print(f"self-test: planted in {package['name']}, found {found}", file=sys.stderr)
    return missed


def clippy(root, target):
    """Runs clippy over the library in a folder; (refused, what it said)."""
    command = ["cargo", "clippy", "-q", "-p", "vram-residency", "--lib", "--locked", "--no-default-features",
               "--target-dir", str(target), "--", "-D", "warnings"]
    done = subprocess.run(command, cwd=root, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode != 0, done.stderr


def watching(target):
    """Does clippy see a newer standard library? Returns what went otherwise."""
    wrong = []
    # Always in the same place: cargo keeps what it built for it.
    folder = target / "msrv-copy"
    shutil.rmtree(folder, ignore_errors=True)
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    refused, said = clippy(folder, target)
    if refused:
        wrong.append(f"clippy refuses the unchanged copy: {said}")
    with (folder / "src/lib.rs").open("a", encoding="utf-8") as file:
        file.write(PLANTED)
    refused, said = clippy(folder, target)
    if not refused or "incompatible_msrv" not in said and "incompatible-msrv" not in said:
        wrong.append(f"clippy does not see the planted use of a newer standard library: {said}")
    shutil.rmtree(folder)
    return wrong


def main():
    """All three."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--target-dir", type=Path, default=ROOT / "target")
    given = options.parse_args()
    declared = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["rust-version"]
    data = metadata()
    wrong = problems(data, declared)
    silent = sum(1 for p in data["packages"] if not p["rust_version"])
    missed = self_test(data, declared)
    wrong += watching(given.target_dir)
    for line in wrong:
        print(f"msrv: {line}", file=sys.stderr)
    print(f"msrv: Rust {declared}; {len(data['packages'])} packages, {silent} of them declare nothing; {len(wrong)} problems, "
          f"self-test: {missed} of 2 planted compilers missed")
    return 1 if wrong or missed else 0


if __name__ == "__main__":
    sys.exit(main())
