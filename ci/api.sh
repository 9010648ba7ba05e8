#!/usr/bin/env bash
# The library's public interface, one line an item, against the committed list .specs/api.txt:
#   ci/api.sh               fails with the difference if the interface has changed
#   ci/api.sh --write       writes the list anew
#   ci/api.sh --self-test   plants changes, and finds them
# Items that only the feature `mock` adds begin with `[mock] `. Derived traits, Send and Sync are part of the interface: a proof must
# not become Clone by the way. Needs cargo-public-api; rustdoc's JSON comes from the stable compiler, told that it may.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

cargo_tool cargo-public-api || exit 1
committed=.specs/api.txt
out=$target/api
mkdir -p "$out"

# Only rustdoc is told so: with RUSTC_BOOTSTRAP in the environment every dependency would be built anew.
printf '#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc "$@"\n' >"$out/rustdoc"
chmod +x "$out/rustdoc"

describe() { # FEATURES JSON: rustdoc's description of the library
    rm -f "$target/doc/vram_residency.json"
    RUSTDOC=$out/rustdoc RUSTDOCFLAGS='' cargo rustdoc -p vram-residency --lib --locked --no-default-features --features "$1" -- \
        -Zunstable-options --output-format json || return 1
    cp "$target/doc/vram_residency.json" "$2"
}

list() { # JSON: the items, without what every type has
    cargo public-api --omit blanket-impls --rustdoc-json "$1" |
        grep -vE '^impl core::(marker::(Freeze|Unpin|UnsafeUnpin)|panic::unwind_safe::(Ref)?UnwindSafe) for ' |
        LC_ALL=C sort -u
}

describe cuda "$out/plain.json" && describe cuda,mock "$out/all.json" || exit 1

listing() { # FILE: what all features have, marked
    list "$out/plain.json" >"$out/plain.txt" && list "$out/all.json" >"$out/all.txt" || return 1
    local only
    only=$(LC_ALL=C comm -23 "$out/plain.txt" "$out/all.txt")
    [ -z "$only" ] || { printf 'error: the feature mock takes away or changes:\n%s\n' "$only" >&2; return 1; }
    { LC_ALL=C comm -12 "$out/plain.txt" "$out/all.txt"; LC_ALL=C comm -13 "$out/plain.txt" "$out/all.txt" | sed 's/^/[mock] /'; } >"$1"
    [ "$(wc -l <"$1")" -gt 500 ] || { echo "error: fewer than 500 items; has cargo-public-api changed its form?" >&2; return 1; }
}

same_as() { # COMMITTED FOUND
    diff -U0 "$1" "$2" && return
    echo "error: the public interface has changed. If that is meant, run ci/api.sh --write, and say so in CHANGELOG.md" >&2
    return 1
}

case ${1:-} in
    --write) listing "$committed" && echo "api: $(wc -l <"$committed") lines written" ;;
    --self-test)
        wrong=0
        listing "$out/sound.txt" || exit 1
        same_as "$out/sound.txt" "$out/sound.txt" >"$out/log" 2>&1 || wrong=$((wrong + 1))
        for name in plain all; do
            cp "$out/$name.json" "$out/$name.sound"
            sed -i 's/"name":"digest_bytes"/"name":"digest_planted"/g' "$out/$name.json"
        done
        listing "$out/planted.txt" || exit 1
        same_as "$out/sound.txt" "$out/planted.txt" >"$out/log" 2>&1 && wrong=$((wrong + 1))
        { grep -q '^-.*::digest_bytes(' "$out/log" && grep -q '^+.*::digest_planted(' "$out/log"; } || wrong=$((wrong + 1))
        # A feature that changes what a name means.
        cp "$out/all.sound" "$out/all.json"
        listing "$out/planted.txt" >"$out/log" 2>&1 && wrong=$((wrong + 1))
        grep -q 'takes away or changes' "$out/log" || wrong=$((wrong + 1))
        cp "$out/plain.sound" "$out/plain.json"
        echo "api self-test: $wrong of 5 wrong"
        [ "$wrong" -eq 0 ]
        ;;
    "") listing "$out/found.txt" && same_as "$committed" "$out/found.txt" && echo "api: $(wc -l <"$committed") lines as committed" ;;
    *) echo "error: unknown argument $1" >&2; exit 2 ;;
esac
