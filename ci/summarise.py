#!/usr/bin/env python3
"""Adds up what the test runners in the given logs report, and closes with one line `N passed, N failed`.

Counts libtest and libtest-mimic (`test result: …`), cucumber (`N scenarios (…)`) and ci/check.sh (`check result: …`).
Ignored, skipped and filtered tests are never counted as passed. Exits 1 when anything failed, or when no test ran.

Usage: ci/summarise.py [--also-failed NAME]… LOG…      ci/summarise.py --self-test
"""

import argparse
import re
import sys

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LIBTEST = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")
CUCUMBER = re.compile(r"^(\d+) scenarios? \(([^)]*)\)")
CHECKS = re.compile(r"^check result: (\d+) passed, (\d+) failed, (\d+) skipped")
TROUBLE = re.compile(r"^\d+ (parsing errors?|hook errors?)")


def count(lines):
    """Returns (tests passed, tests failed, checks passed, checks failed, not run, summary lines)."""
    tests, checks, idle, shown = [0, 0], [0, 0], 0, []
    for line in lines:
        line = ANSI.sub("", line).strip()
        if found := LIBTEST.match(line):
            passed, failed, ignored = map(int, found.groups())
            tests[0] += passed
            tests[1] += failed
            idle += ignored
            if passed or failed or ignored:
                shown.append(line)
        elif found := CUCUMBER.match(line):
            parts = {word: int(n) for n, word in re.findall(r"(\d+) (\w+)", found.group(2))}
            tests[0] += parts.get("passed", 0)
            idle += parts.get("skipped", 0)
            tests[1] += int(found.group(1)) - parts.get("passed", 0) - parts.get("skipped", 0)
            shown.append(line)
        elif found := CHECKS.match(line):
            passed, failed, skipped = map(int, found.groups())
            checks[0] += passed
            checks[1] += failed
            idle += skipped
            shown.append(line)
        elif TROUBLE.match(line):
            tests[1] += 1
            shown.append(line)
    return *tests, *checks, idle, shown


def verdict(lines, also_failed=()):
    """Returns (lines to print, exit status)."""
    passed, failed, checks_passed, checks_failed, idle, shown = count(lines)
    if passed + failed == 0:
        shown.append("no test ran")
        failed += 1
    # A runner that failed without counting a failure (it did not build, it died) counts as one.
    for name in also_failed:
        shown.append(f"failed: {name}")
        if name == "checks":
            checks_failed = max(checks_failed, 1)
        else:
            failed = max(failed, 1)
    failed += checks_failed
    if idle:
        shown.append(f"{idle} did not run (ignored or skipped) and count as neither")
    shown.append(f"{passed + checks_passed} passed, {failed} failed")
    return shown, 1 if failed else 0


def self_test():
    good = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s"
    cases = [
        ([good], (), "3 passed, 0 failed", 0),
        ([good, good.replace("3 p", "2 p")], (), "5 passed, 0 failed", 0),
        (["test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured"], (), "3 passed, 2 failed", 1),
        # What one case's own process said is no result of the suite's.
        ([good, "| test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured"], (), "3 passed, 0 failed", 0),
        (["\x1b[1m71 scenarios (\x1b[32m71 passed\x1b[0m)"], (), "71 passed, 0 failed", 0),
        (["4 scenarios (1 passed, 1 skipped, 2 failed)"], (), "1 passed, 2 failed", 1),
        ([good, "2 parsing errors"], (), "3 passed, 1 failed", 1),
        ([good, "check result: 5 passed, 1 failed, 1 skipped"], (), "8 passed, 1 failed", 1),
        ([good, "check result: 5 passed, 0 failed, 1 skipped"], (), "8 passed, 0 failed", 0),
        ([good], ("tests",), "3 passed, 1 failed", 1),
        ([good, "check result: 5 passed, 1 failed, 1 skipped"], ("tests", "checks"), "8 passed, 2 failed", 1),
        ([good], ("checks",), "3 passed, 1 failed", 1),
        (["test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured"], ("tests",), "3 passed, 2 failed", 1),
        (["check result: 5 passed, 0 failed, 0 skipped"], (), "5 passed, 1 failed", 1),
        ([], (), "0 passed, 1 failed", 1),
        (["test result: ok. 0 passed; 0 failed; 9 ignored; 0 measured"], (), "0 passed, 1 failed", 1),
    ]
    wrong = 0
    for lines, also, last, status in cases:
        shown, code = verdict(lines, also)
        if (shown[-1], code) != (last, status):
            wrong += 1
            print(f"self-test: {lines} -> {shown[-1]!r}, {code}; expected {last!r}, {status}", file=sys.stderr)
    print(f"summarise self-test: {len(cases) - wrong} of {len(cases)} cases as expected")
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="*")
    parser.add_argument("--also-failed", action="append", default=[], metavar="NAME",
                        help="a runner that exited with failure: tests or checks")
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    if options.self_test:
        return self_test()
    lines = []
    for log in options.logs:
        with open(log, encoding="utf-8", errors="replace") as text:
            lines += text.read().splitlines()
    shown, status = verdict(lines, options.also_failed)
    print("\n".join(shown))
    return status


if __name__ == "__main__":
    sys.exit(main())
