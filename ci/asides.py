#!/usr/bin/env python3
"""Does the library say log lines and metrics aside? Whoever takes them may panic, and must hinder nothing by it.

Usage: ci/asides.py [--self-test]

Every macro of tracing and of metrics in src (tests excepted) stands within the parentheses of a call of `aside`. What
describes metrics may stand anywhere: whoever sets a recorder up calls it.
"""
# covers: ERR-1

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A sink like any other: the trail, which calls it, keeps its panics to itself.
EXCEPTED = {"src/audit/tracing.rs"}
UNIT_TESTS = "#[cfg(test)]\nmod tests {"
# What has no say in where a macro stands: comments, text (raw too) and characters.
SILENT = re.compile(r"""//[^\n]*|/\*.*?\*/|\br(#*)".*?"\1|"(?:\\.|[^"\\])*"|'(?:\\.[^']*|[^'\\\n])'""", re.S)
SAYING = re.compile(r"\b(?:(?:tracing|metrics)\s*::\s*(?!describe_)\w+|error|warn|info|debug|trace|event|span|\w+_span|counter|gauge|histogram)\s*!"
                    r"|#\[(?:tracing\s*::\s*)?instrument\b")


def stands_in_aside(text, at):
    """Whether one of the parentheses that are open at a place belongs to a call of `aside`."""
    depth = 0
    for place in range(at - 1, -1, -1):
        if text[place] in ")]}":
            depth += 1
        elif text[place] in "([{":
            depth -= 1
            if depth < 0:
                if re.search(r"\baside\s*$", text[max(0, place - 40):place]):
                    return True
                depth = 0
    return False


def looked_at(source):
    """The places of a source file that say something: line, and whether aside."""
    text = SILENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), source.partition(UNIT_TESTS)[0])
    return [(text.count("\n", 0, found.start()) + 1, stands_in_aside(text, found.start())) for found in SAYING.finditer(text)]


def files():
    """The library's sources without tests, and without what is excepted."""
    for path in sorted((ROOT / "src").rglob("*.rs")):
        name = path.relative_to(ROOT)
        if "tests" not in name.with_suffix("").parts and str(name) not in EXCEPTED:
            yield name, path.read_text(encoding="utf-8")


def self_test():
    """Places that are told apart; returns how many were not."""
    said = 'fn f() { aside(|| { tracing::warn!(a = "b)", "c"); }); }'
    planted = [
        (said, [True]),
        (said.replace("aside(|| {", "{").replace("; });", "; }"), [False]),
        ('fn f() { aside(|| 1); tracing::warn!("c"); }', [False]),
        ('fn f() { beside(|| tracing::warn!("c")); }', [False]),
        ('use metrics::counter;\nfn f() { counter!("c").increment(1) }', [False]),
        ("#[tracing::instrument]\nfn f() {}", [False]),
        ('fn f() { crate::aside::aside(|| match (1, ")") { _ => metrics::gauge!("c").set(1.0) }) }', [True]),
        ("fn f() { /* tracing::warn!(1) */ } // tracing::warn!(1)", []),
        ("fn f<'a>(c: &'a str) { aside(|| tracing::event!(Level::INFO, quote = '(')) }", [True]),
        ('fn f() { metrics::describe_gauge!("c", "d"); }', []),
        (f'{UNIT_TESTS} fn f() {{ tracing::warn!("c") }} }}', []),
    ]
    missed = [(source, expected) for source, expected in planted if [aside for _, aside in looked_at(source)] != expected]
    for source, expected in missed:
        print(f"self-test: not {expected}: {source}", file=sys.stderr)
    print(f"asides self-test: {len(planted) - len(missed)} of {len(planted)} as expected")
    return len(missed)


def main():
    """Looks at every source file."""
    if sys.argv[1:] == ["--self-test"]:
        return 1 if self_test() else 0
    places = [(name, line, aside) for name, source in files() for line, aside in looked_at(source)]
    wrong = [f"{name}:{line} logs or counts outside `aside` (src/panics.rs)" for name, line, aside in places if not aside]
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    print(f"asides: {len(places)} log lines and metrics, {len(wrong)} not said aside")
    return 1 if wrong or not places else 0


if __name__ == "__main__":
    sys.exit(main())
