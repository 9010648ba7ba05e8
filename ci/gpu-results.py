#!/usr/bin/env python3
"""Reads the results.json that ci/gpu-run.sh writes, and says whether it has the form that .specs/50-testing.md gives it.

Usage: ci/gpu-results.py RESULTS [--expect STAGE=STATUS]… [--keep FOLDER]      ci/gpu-results.py --self-test

  --expect   fails too unless the stage ended so
  --keep     writes FOLDER/DEVICE-COMMIT.json and .md with the speeds, for benches/results/
"""

import argparse
import copy
import json
import re
import sys
from pathlib import Path

FORMAT = "vram-residency-gpu-run-1"
STAGES = ("probe", "device", "attacks", "bench", "weights", "bdd", "residue", "overlap", "properties", "engine", "sanitizer")
STATUSES = ("passed", "failed", "skipped", "timeout")
OUTCOMES = ("held", "failed", "skipped", "answered", "timeout")
TOP = {"format": str, "date": str, "commit": str, "command": str, "device": str, "probe": dict, "driver": str,
       "budget_seconds": int, "seconds": int, "stages": list, "attacks": list, "questions": list, "residue": list,
       "bench": (dict, type(None)), "bench_plain": (dict, type(None)), "overlap": (dict, type(None))}
STAGE = {"name": str, "status": str, "reason": str, "seconds": int, "passed": int, "failed": int, "skipped": int, "log": str}
CASE = {"name": str, "group": str, "outcome": str, "why": str, "seconds": (int, float), "answers": dict}
BENCH = {"device": str, "variant": str, "tiny": bool, "limits": dict, "rows": list, "left_out": list, "unmet": list}
ROW = {"what": str, "bytes": int, "rounds": int, "median_ns": int, "least_ns": int, "most_ns": int,
       "gb_per_s": (float, int, type(None)), "share": (float, int, type(None)), "share_of": (str, type(None)),
       "wanted": (str, type(None)), "met": (bool, type(None))}


def fields(where, value, form):
    """Yields what is wrong with an object."""
    if not isinstance(value, dict):
        yield f"{where} is no object"
        return
    for name in sorted(set(form) | set(value)):
        if name not in value:
            yield f"{where} has no {name}"
        elif name not in form:
            yield f"{where} has {name}, which is not documented"
        elif not isinstance(value[name], form[name]) or (form[name] is int and isinstance(value[name], bool)):
            yield f"{where}.{name} is {json.dumps(value[name])[:60]}"


def bench(where, value):
    if value is None:
        return
    yield from fields(where, value, BENCH)
    rows = value.get("rows") or []
    if not rows:
        yield f"{where} has no rows"
    for at, row in enumerate(rows):
        yield from fields(f"{where}.rows[{at}]", row, ROW)
        if isinstance(row, dict) and not row.get("least_ns", 0) <= row.get("median_ns", 0) <= row.get("most_ns", 0):
            yield f"{where}.rows[{at}]: the median is not between the fastest and the slowest"


def problems(results, expected=()):
    """Yields what is wrong with results."""
    yield from fields("results", results, TOP)
    if not isinstance(results, dict):
        return
    if results.get("format") != FORMAT:
        yield f"the format is {results.get('format')!r}, not {FORMAT!r}"
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", str(results.get("date"))):
        yield "date is no date"
    stages = results.get("stages") if isinstance(results.get("stages"), list) else []
    if not stages:
        yield "no stage"
    ended = {}
    for at, stage in enumerate(stages):
        yield from fields(f"stages[{at}]", stage, STAGE)
        if not isinstance(stage, dict):
            continue
        name, status = stage.get("name"), stage.get("status")
        if name not in STAGES or name in ended:
            yield f"stages[{at}] is {name!r}, which is no stage, or there twice"
        if status not in STATUSES:
            yield f"stages[{at}] ended as {status!r}"
        if status != "passed" and not stage.get("reason"):
            yield f"{name} is {status} without a reason"
        ended[name] = status
    for group, place in (("attack", "attacks"), ("question", "questions"), ("residue", "residue")):
        for at, case in enumerate(results.get(place) or []):
            yield from fields(f"{place}[{at}]", case, CASE)
            if isinstance(case, dict) and (case.get("group") != group or case.get("outcome") not in OUTCOMES):
                yield f"{place}[{at}] is of group {case.get('group')!r} and ended as {case.get('outcome')!r}"
    if ended.get("attacks") == "passed" and not results.get("attacks"):
        yield "the attacks passed, but there are none"
    if ended.get("bench") == "passed" and not results.get("bench"):
        yield "the bench passed, but measured nothing"
    for name in ("bench", "bench_plain", "overlap"):
        yield from bench(name, results.get(name))
    for name, status in expected:
        if str(ended.get(name)) != status:
            yield f"{name} ended as {ended.get(name)}, not {status}"


def keep(results, folder):
    """Writes the speeds as a row for machines and a table for people."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", results["device"]).strip("-").lower() + "-" + results["commit"][:9]
    speeds = {key: results[key] for key in ("format", "date", "commit", "device", "driver", "probe", "bench", "bench_plain", "overlap")}
    (folder / f"{name}.json").write_text(json.dumps(speeds, indent=1) + "\n", encoding="utf-8")
    text = [f"# {results['device']}, driver {results['driver']}, commit {results['commit']}, {results['date']}"]
    for key in ("bench", "bench_plain", "overlap"):
        if results[key]:
            text += ["", f"## {key}", "", "| what | median µs | least µs | most µs | GB/s | share | asked |", "|---|---|---|---|---|---|---|"]
        for row in (results[key] or {}).get("rows", []):
            times = " | ".join(f"{row[at] / 1000:.1f}" for at in ("median_ns", "least_ns", "most_ns"))
            speed = "" if row["gb_per_s"] is None else f"{row['gb_per_s']:.1f}"
            share = "" if row["share"] is None else f"{row['share']:.3f} {row['share_of']}"
            asked = "" if row["wanted"] is None else f"{row['wanted']}: {'met' if row['met'] else 'not met'}"
            text.append(f"| {row['what']} | {times} | {speed} | {share} | {asked} |")
        text += [f"\nLeft out: {what}" for what in (results[key] or {}).get("left_out", [])]
    (folder / f"{name}.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print(folder / f"{name}.md")


def self_test():
    """Plants one defect at a time."""
    row = {"what": "w", "bytes": 1, "rounds": 3, "median_ns": 2, "least_ns": 1, "most_ns": 3, "gb_per_s": 0.5, "share": None,
           "share_of": None, "wanted": None, "met": None}
    sound = {"format": FORMAT, "date": "2026-01-01T00:00:00Z", "commit": "c", "command": "x", "device": "d", "probe": {},
             "driver": "1", "budget_seconds": 1, "seconds": 1, "questions": [], "residue": [], "bench_plain": None, "overlap": None,
             "attacks": [{"name": "a", "group": "attack", "outcome": "held", "why": "", "seconds": 0.1, "answers": {}}],
             "stages": [{"name": "attacks", "status": "passed", "reason": "", "seconds": 1, "passed": 1, "failed": 0, "skipped": 0,
                         "log": "attacks.log"}],
             "bench": {"device": "d", "variant": "mad", "tiny": True, "limits": {}, "rows": [row], "left_out": [], "unmet": []}}
    cases = [
        (("format",), "other", "the format is"),
        (("date",), "today", "date is no date"),
        (("more",), 1, "not documented"),
        (("stages",), [], "no stage"),
        (("stages", 0, "status"), "fine", "ended as 'fine'"),
        (("stages", 0, "status"), "skipped", "without a reason"),
        (("stages", 0, "name"), "lunch", "is no stage"),
        (("stages", 0, "passed"), True, "passed is true"),
        (("attacks",), [], "there are none"),
        (("attacks", 0, "outcome"), "survived", "ended as 'survived'"),
        (("attacks", 0, "group"), "question", "of group 'question'"),
        (("bench", "rows"), [], "has no rows"),
        (("bench", "rows", 0, "median_ns"), 9, "not between"),
    ]
    wrong = list(problems(sound))
    for path, value, complaint in cases:
        planted = copy.deepcopy(sound)
        place = planted
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        if not any(complaint in problem for problem in problems(planted)):
            wrong.append(f"{path} = {value!r} was not found")
    if not any("not timeout" in problem for problem in problems(sound, [("attacks", "timeout")])):
        wrong.append("an unexpected status was not found")
    for line in wrong:
        print(f"self-test: {line}", file=sys.stderr)
    print(f"gpu-results self-test: {len(cases) + 1 - len(wrong)} of {len(cases) + 1} defects found")
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path)
    parser.add_argument("--expect", action="append", default=[], metavar="STAGE=STATUS")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    if options.self_test:
        return self_test()
    if options.results is None:
        parser.error("no results given")
    results = json.loads(options.results.read_text(encoding="utf-8"))
    found = list(problems(results, [tuple(each.split("=", 1)) for each in options.expect]))
    for problem in found:
        print(f"gpu-results: {problem}", file=sys.stderr)
    if not found and options.keep:
        keep(results, options.keep)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
