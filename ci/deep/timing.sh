#!/usr/bin/env bash
# Tags are compared in constant time, by statistics; a leaky twin is found out.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

log=$target/deep/timing.log
mkdir -p "$(dirname "$log")"
cargo test --locked --release -p vram-residency --lib --no-run || exit 1
taskset -c 0 cargo test --locked --release -p vram-residency --lib keys::tests::timing -- --include-ignored --nocapture \
    --test-threads 1 2>&1 | tee "$log"
[ "${PIPESTATUS[0]}" -eq 0 ] || exit 1
# The measurement itself ran, for both pairs of classes.
[ "$(grep -c 'for the leaky twin' "$log")" -eq 2 ] || { echo "error: the measurement did not run" >&2; exit 1; }
