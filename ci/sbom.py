#!/usr/bin/env python3
"""Bills of materials (CycloneDX) of the worker and of the library, as a production build makes them.

Usage: ci/sbom.py OUT [--self-test]

Writes OUT/vram-worker.cdx.json and OUT/vram-residency.cdx.json with cargo-cyclonedx, twice, and compares: they may differ in serial
number and time alone. Each is then held against what `cargo tree` says of the same build, build dependencies included, and against
Cargo.lock: every package is there with version, purl, licence and, if it comes from a registry, the lock file's checksum; no other
is; nothing names a folder of this machine. cargo-cyclonedx describes the workspace's features taken together, so that packages which only
tests bring are taken out here. --self-test plants defects in what it wrote, and finds them.
"""

import argparse
import copy
import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCTS = {"vram-worker": "worker", "vram-residency": "."}
FEATURES = ["--no-default-features", "--features", "cuda"]
TARGET = "x86_64-unknown-linux-gnu"
SPEC = "1.5"
RAW = "sbom-unfinished"


def run(*command):
    """What a command prints; its failure ends the script."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(command[:2])} failed")
    return done.stdout


def packages(product):
    """(name, version) of every package that the build uses."""
    tree = run("cargo", "tree", "--locked", "-p", product, *FEATURES, "-e", "normal,build", "--target", TARGET,
               "--prefix", "none", "--format", "{p}")
    found = set()
    for line in tree.splitlines():
        name, version = line.split()[:2]
        found.add((name, version.removeprefix("v")))
    return found


def checksums():
    """(name, version) -> SHA-256 of everything that comes from a registry."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))
    return {(p["name"], p["version"]): p["checksum"] for p in lock["package"] if "checksum" in p}


def described(product):
    """The bill that cargo-cyclonedx writes, without this machine's folders and without packages of tests."""
    try:
        run("cargo", "cyclonedx", "-q", "--manifest-path", f"{PRODUCTS[product]}/Cargo.toml", "-f", "json", *FEATURES,
            "--target", TARGET, "--spec-version", SPEC, "--override-filename", RAW)
        text = (ROOT / PRODUCTS[product] / f"{RAW}.json").read_text(encoding="utf-8")
    finally:
        for left in (*ROOT.glob(f"{RAW}.json"), *ROOT.glob(f"*/{RAW}.json"), *ROOT.glob(f"tests/*/{RAW}.json")):
            left.unlink()
    bill = json.loads(text.replace(f"path+file://{ROOT}/", "workspace:").replace(f"path+file://{ROOT}", "workspace:."))
    wanted = packages(product)
    bill["components"] = [c for c in bill["components"] if (c["name"], c["version"]) in wanted]
    kept = {c["bom-ref"] for c in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    edges = [edge for edge in bill["dependencies"] if edge["ref"] in kept]
    for edge in edges:
        if "dependsOn" in edge:
            edge["dependsOn"] = [ref for ref in edge["dependsOn"] if ref in kept]
    bill["dependencies"] = edges
    return bill


def timeless(bill):
    """The bill without what two runs may differ in."""
    bill = copy.deepcopy(bill)
    bill.pop("serialNumber", None)
    bill["metadata"].pop("timestamp", None)
    return bill


def problems(bill, product, wanted, sums):
    """What is wrong with a bill, in words."""
    wrong = []
    if bill.get("bomFormat") != "CycloneDX" or bill.get("specVersion") != SPEC:
        wrong.append(f"this is no CycloneDX {SPEC}")
    if not str(bill.get("serialNumber", "")).startswith("urn:uuid:") or "timestamp" not in bill.get("metadata", {}):
        wrong.append("it has no serial number or no time")
    main = bill.get("metadata", {}).get("component", {})
    if main.get("name") != product:
        wrong.append(f"it describes {main.get('name')!r}, not {product}")
    parts = [main, *bill.get("components", [])]
    found = [(c.get("name"), c.get("version")) for c in parts]
    if len(parts) < 2:
        wrong.append("it has no components")
    wrong += [f"{name} {version} is missing" for name, version in sorted(wanted - set(found))]
    wrong += [f"{name} {version} is not part of the build" for name, version in sorted(set(found) - wanted, key=str)]
    wrong += [f"{name} {version} is there twice" for name, version in sorted({f for f in found if found.count(f) > 1}, key=str)]
    for part in parts:
        name, version = part.get("name"), part.get("version")
        if not part.get("purl", "").startswith(f"pkg:cargo/{name}@{version}"):
            wrong.append(f"{name} {version} has no purl")
        if not any(given.get("expression") or given.get("license") for given in part.get("licenses", [])):
            wrong.append(f"{name} {version} has no licence")
        hashes = {h["content"] for h in part.get("hashes", []) if h["alg"] == "SHA-256"}
        if (name, version) in sums and hashes != {sums[name, version]}:
            wrong.append(f"{name} {version} has not the checksum of Cargo.lock")
    refs = {part.get("bom-ref") for part in parts}
    edges = bill.get("dependencies", [])
    if {edge["ref"] for edge in edges} != refs:
        wrong.append("components and dependency graph differ")
    wrong += [f"{edge['ref']} depends on {ref}, which is not there"
              for edge in edges for ref in edge.get("dependsOn", []) if ref not in refs]
    if str(ROOT) in json.dumps(bill):
        wrong.append("it names a folder of this machine")
    return wrong


def self_test(bill, product, wanted, sums):
    """Plants one defect at a time in a sound bill; returns how many were not found as expected."""
    def hide(part):
        return lambda bill: bill["components"][1].pop(part)
    crate = f"{bill['components'][1]['name']} {bill['components'][1]['version']}"
    planted = [
        (None, lambda bill: None),
        ("this is no CycloneDX", lambda bill: bill.update(bomFormat="SPDX")),
        ("this is no CycloneDX", lambda bill: bill.pop("specVersion")),
        ("it has no serial number", lambda bill: bill.pop("serialNumber")),
        ("not vram-", lambda bill: bill["metadata"]["component"].update(name="other")),
        ("it has no components", lambda bill: bill.pop("components")),
        (f"{crate} is missing", lambda bill: bill["components"].pop(1)),
        ("other 1.0.0 is not part", lambda bill: bill["components"][1].update(name="other", version="1.0.0")),
        (f"{crate} is there twice", lambda bill: bill["components"].append(bill["components"][1])),
        (f"{crate} has no purl", hide("purl")),
        (f"{crate} has no licence", hide("licenses")),
        (f"{crate} has not the checksum", hide("hashes")),
        ("components and dependency graph differ", lambda bill: bill["dependencies"].pop(1)),
        ("it names a folder", lambda bill: bill["components"][1].update(description=f"{ROOT}/src")),
    ]
    missed = 0
    for expected, plant in planted:
        changed = copy.deepcopy(bill)
        plant(changed)
        found = problems(changed, product, wanted, sums)
        if (found != []) if expected is None else not any(expected in one for one in found):
            missed += 1
            print(f"self-test: planted {expected!r}, found {found}", file=sys.stderr)
    print(f"sbom self-test: {len(planted) - missed} of {len(planted)} cases as expected")
    return missed


def main():
    """Writes, compares, examines."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("out", type=Path)
    options.add_argument("--self-test", action="store_true", help="plant defects as well")
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sums, failed = checksums(), 0
    for product in PRODUCTS:
        bill, again, wanted = described(product), described(product), packages(product)
        wrong = problems(bill, product, wanted, sums)
        if timeless(bill) != timeless(again):
            wrong.append("a second run gives another bill")
        if bill["serialNumber"] == again["serialNumber"]:
            wrong.append("two bills have one serial number")
        for line in wrong:
            print(f"{product}: {line}", file=sys.stderr)
        file = given.out / f"{product}.cdx.json"
        file.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{file}: {len(bill['components'])} components, {len(wrong)} problems")
        failed += len(wrong)
        if given.self_test and not wrong:
            failed += self_test(bill, product, wanted, sums)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
