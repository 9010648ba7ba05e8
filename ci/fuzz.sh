#!/usr/bin/env bash
# Fuzzes the targets of tests/fuzz: ci/fuzz.sh SECONDS [TARGET…]   (no TARGET: all of them; `ci/fuzz.sh --list` names them)
# Two targets run at a time, each for so many seconds, from its corpus and under the address sanitizer. First a planted defect
# must be found. A target that ran hardly any input, saw no code, or did not read its whole corpus has failed.
# PROPTEST_RNG_SEED, where set, seeds the fuzzers too; what they find goes to VRAM_RESIDENCY_FUZZ_FOUND, where set, and is
# begun with the next time.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

manifest=tests/fuzz/Cargo.toml
mapfile -t targets < <(find tests/fuzz/corpus -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort)
if [ "${1:-}" = --list ]; then
    printf '%s\n' "${targets[@]}"
    exit 0
fi

# The fewest inputs, and edges of code, that count as a run; the slowest target does a thousand inputs each second on a core
# that it shares with nine others.
least_inputs=2000
least_edges=50

# judge LOG SEEDS EXIT: prints what a run did; fails unless it ran, on all seeds, and found nothing.
judge() {
    local inputs edges seeds
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$1" | tail -n 1)
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$1" | tail -n 1)
    # What the folder for new inputs holds is counted too.
    seeds=$(sed -n 's/^INFO: seed corpus: files: \([0-9]*\) .*/\1/p' "$1" | tail -n 1)
    printf '%10s inputs %6s edges %5s seeds\n' "${inputs:-0}" "${edges:-0}" "${seeds:-0}"
    [ "$3" -eq 0 ] || { echo "error: exit $3" >&2; return 1; }
    [ "${inputs:-0}" -ge "$least_inputs" ] || { echo "error: fewer than $least_inputs inputs" >&2; return 1; }
    [ "${edges:-0}" -ge "$least_edges" ] || { echo "error: fewer than $least_edges edges of code seen" >&2; return 1; }
    [ "${seeds:-0}" -ge "$2" ] || { echo "error: $2 seeds are in the corpus, ${seeds:-0} were read" >&2; return 1; }
}

self_test() { # judge refuses runs that show nothing
    local log good='stat::number_of_executed_units: 2000' cov='#9 DONE cov: 50 ft: 1' read='INFO: seed corpus: files: 7 min: 1b'
    log=$(mktemp)
    printf '%s\n' "$read" "$cov" "$good" >"$log"
    judge "$log" 7 0 >/dev/null || return 1
    judge "$log" 7 77 >/dev/null 2>&1 && return 1
    judge "$log" 8 0 >/dev/null 2>&1 && return 1
    printf '%s\n' "$read" "$cov" 'stat::number_of_executed_units: 0' >"$log"
    judge "$log" 7 0 >/dev/null 2>&1 && return 1
    printf '%s\n' "$read" "$good" >"$log"
    judge "$log" 7 0 >/dev/null 2>&1 && return 1
    : >"$log"
    judge "$log" 0 0 >/dev/null 2>&1 && return 1
    rm -f "$log"
    echo "fuzz self-test: 6 of 6 cases as expected"
}
if [ "${1:-}" = --self-test ]; then
    self_test || { echo "error: a run that shows nothing was not refused" >&2; exit 1; }
    exit 0
fi

seconds=${1:-}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
shift
[ $# -eq 0 ] || targets=("$@")
for name in "${targets[@]}"; do
    [ -d "tests/fuzz/corpus/$name" ] || { echo "error: no target $name; there are:" >&2; ls tests/fuzz/corpus >&2; exit 2; }
done
[ "${#targets[@]}" -gt 0 ] || { echo "error: no targets" >&2; exit 1; }
need clang++ clang
python3 tests/fuzz/seeds.py --check || exit 1

# The stable compiler, with what cargo-fuzz would give it. The host triple keeps build scripts as they are.
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=$target/fuzz RUSTC_BOOTSTRAP=1 CXX=clang++
export RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
-Cllvm-args=-simplifycfg-branch-fold-threshold=0"
cargo build --release --locked --manifest-path "$manifest" --target "$host" --bins || exit 1
binaries=$CARGO_TARGET_DIR/$host/release

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
crashes=$CARGO_TARGET_DIR/crashes
mkdir -p "$crashes"
export ASAN_OPTIONS=abort_on_error=0:detect_leaks=1
options=(-print_final_stats=1 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 -use_value_profile=1)

# A defect that only a fuzzer which sees comparisons finds.
mkdir -p "$work/planted"
"$binaries/planted" "${options[@]}" -seed="${PROPTEST_RNG_SEED:-0}" -max_total_time=60 \
    -artifact_prefix="$work/" "$work/planted" >"$work/planted.log" 2>&1
if ! grep -q 'the planted defect' "$work/planted.log"; then
    tail -n 20 "$work/planted.log"
    echo "error: the planted defect was not found" >&2
    exit 1
fi
echo "the planted defect was found after $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/planted.log") inputs"

fuzz() { # one target; its log and its exit status stay in $work
    local longest found=${VRAM_RESIDENCY_FUZZ_FOUND:-$work/found}/$1
    mkdir -p "$found"
    # Longer inputs than twice the longest seed cost time and say nothing new.
    longest=$(find "tests/fuzz/corpus/$1" -type f -printf '%s\n' | sort -n | tail -n 1)
    "$binaries/$1" "${options[@]}" -seed="${PROPTEST_RNG_SEED:-0}" -max_total_time="$seconds" \
        -max_len=$((2 * longest + 64)) -artifact_prefix="$crashes/$1-" "$found" "tests/fuzz/corpus/$1" \
        >"$work/$1.log" 2>&1
    echo $? >"$work/$1.exit"
}
for name in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    fuzz "$name" &
done
wait

failed=0
for name in "${targets[@]}"; do
    printf '%-14s' "$name"
    if ! judge "$work/$name.log" "$(find "tests/fuzz/corpus/$name" -type f | wc -l)" "$(cat "$work/$name.exit")"; then
        failed=$((failed + 1))
        grep -aE -A 5 'panicked at|^==[0-9]+== ?ERROR|^SUMMARY|^artifact_prefix|^Base64' "$work/$name.log" | head -n 60
        tail -n 5 "$work/$name.log"
        echo "error: $name failed; what it failed on, if anything: $crashes/$name-*" >&2
    fi
done
echo "${#targets[@]} targets, $failed failed"
[ "$failed" -eq 0 ]
