#!/usr/bin/env bash
# Tries ci/gpu-run.sh on a machine without a GPU: a small bundle on the stand-in for the driver, programs that fail or never end,
# and no device at all.
# shellcheck source-path=SCRIPTDIR
# shellcheck disable=SC2317 # `check` calls the functions
. "$(dirname "$0")/lib.sh"

bundle=$target/gpu-bundle-quick
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0
check() { # WHAT COMMAND…
    local what=$1
    shift
    if "$@" >"$out/log" 2>&1; then
        echo "passed: $what"
    else
        echo "FAILED: $what"
        cat "$out/log"
        failed=1
    fi
}
ends_with() { # STATUS COMMAND…
    local wanted=$1 status
    shift
    "$@" 2>"$out/stderr"
    status=$?
    cat "$out/stderr"
    [ "$status" -eq "$wanted" ] || { echo "exit status $status, not $wanted"; return 1; }
}
results() { python3 ci/gpu-results.py "$@"; }

ci/gpu-bundle.sh --quick "$bundle" || exit 1
run=$bundle/gpu-run.sh

check "every stage on the stand-in" ends_with 0 "$run" "$out/all" --device stand-in
check "its results" results "$out/all/results.json" --expect attacks=passed --expect residue=passed --expect bench=passed \
    --expect overlap=passed --expect probe=passed --expect device=skipped --expect sanitizer=skipped --keep "$out"
few_files() { [ "$(find "$out/all" -type f | wc -l)" -eq 3 ] && grep -q 'one_bit_through_another_mapping' "$out/all/summary.md"; }
check "three files, and the attacks in the summary" few_files
again() { ends_with 0 "$run" "$out/all" --device stand-in --resume --stage attacks --stage residue && grep -q 'attacks passed before' "$out/log"; }
check "what passed is not run again" again
check "and is kept" results "$out/all/results.json" --expect bench=passed --expect attacks=passed

# The same with a bench that never ends, and with one that fails.
broken=$out/broken
cp -r "$bundle" "$broken"
printf '#!/bin/sh\nsleep 100\n' >"$broken/bin/bench-device"
check "a stage that does not end" ends_with 1 "$broken/gpu-run.sh" "$out/late" --device stand-in --stage bench --stage overlap --budget 6
check "its results" results "$out/late/results.json" --expect bench=timeout --expect overlap=skipped
stopped() { # from outside, while a stage runs
    timeout -s TERM 4 "$broken/gpu-run.sh" "$out/stopped" --device stand-in --stage probe --stage bench --stage overlap
    [ -s "$out/stopped/results.json" ]
}
check "a run that is stopped" stopped
check "its results" results "$out/stopped/results.json" --expect probe=passed --expect bench=timeout --expect overlap=None
printf '#!/bin/sh\necho "error: \\"it\\" \\\\ broke"\nexit 1\n' >"$broken/bin/bench-device"
check "a stage that fails" ends_with 1 "$broken/gpu-run.sh" "$out/bad" --device stand-in --stage bench
check "its results" results "$out/bad/results.json" --expect bench=failed

if [ -e /dev/nvidia0 ]; then
    echo "SKIPPED gpu_scripts/no GPU: this machine has one"
else
    check "no GPU" ends_with 3 "$run" "$out/none"
    one_line() { [ "$(wc -l <"$out/stderr")" -eq 1 ] && [ ! -e "$out/none" ]; }
    check "says so in one line and writes nothing" one_line
fi
check "an unknown stage" ends_with 2 "$run" "$out/none" --stage lunch
exit "$failed"
