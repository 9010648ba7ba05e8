#!/usr/bin/env bash
# The library's public interface, one line an item, against .specs/api.txt; `ci/api.sh --write` writes that anew. Items that only the
# feature `mock` adds begin with `[mock] `. Derived traits, Send and Sync are listed: a proof must not become Clone by the way.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
set -e

out=$target/api
mkdir -p "$out"
# Only rustdoc is told that it may write JSON: dependencies that saw the variable would be built anew.
printf '#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc "$@"\n' >"$out/rustdoc"
chmod +x "$out/rustdoc"
export LC_ALL=C RUSTDOC=$out/rustdoc RUSTDOCFLAGS=
for features in cuda cuda,mock; do
    cargo rustdoc -q -p vram-residency --lib --locked --no-default-features --features "$features" -- \
        -Zunstable-options --output-format json
    cargo public-api --omit blanket-impls --rustdoc-json "$target/doc/vram_residency.json" |
        grep -vE '^impl(<[^>]*>)? core::(marker::(Freeze|Unpin|UnsafeUnpin)|panic::unwind_safe::(Ref)?UnwindSafe) for ' | sort -u >"$out/$features"
done
[ -z "$(comm -23 "$out/cuda" "$out/cuda,mock")" ] || { echo "error: the feature mock takes away or changes what a name means"; exit 1; }
{ cat "$out/cuda"; comm -13 "$out/cuda" "$out/cuda,mock" | sed 's/^/[mock] /'; } >"$out/api.txt"
[ "${1:-}" != --write ] || cp "$out/api.txt" .specs/api.txt
diff -U0 .specs/api.txt "$out/api.txt" || { echo "error: if that is meant, run ci/api.sh --write, and say so in CHANGELOG.md"; exit 1; }
