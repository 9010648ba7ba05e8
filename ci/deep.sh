#!/usr/bin/env bash
# Checks that take too long for every run: ci/deep.sh PART…   (no PART: lists them)
# Each part is timed and ends as passed, FAILED or SKIPPED; the last line is `N passed, N failed`.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

parts=(candle removed_waits stress stress_sanitized properties bench)

part_candle() { # a real engine on adopted weights
    bash ci/candle-example.sh
}

part_removed_waits() { # each ordering of the device code is needed: taken out, a test fails
    bash ci/removed-waits.sh
}

part_stress() { # many threads on one manager, for a minute
    VRAM_RESIDENCY_STRESS_SECONDS=60 cargo test --locked --release --test stress
}

part_stress_sanitized() { # the same, the mock's C included, under the address sanitizer
    CARGO_TARGET_DIR=$target/sanitize RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS=detect_leaks=0 \
        CC=clang CFLAGS="-fsanitize=address -fno-omit-frame-pointer" VRAM_RESIDENCY_STRESS_SECONDS=60 \
        cargo test --locked --release --target x86_64-unknown-linux-gnu -p vram-residency --test stress
}

part_properties() { # the random cases anew, with a seed of its own
    env -u PROPTEST_RNG_SEED cargo test --locked --test properties --test properties_engine --lib
}

part_bench() { # the speeds that the requirements name
    local bench status=0
    for bench in host_digest fixed_cost; do
        cargo bench --locked --bench "$bench" -- --check || status=1
    done
    cargo bench --locked --bench batch --no-run || return 1
    taskset -c 0 cargo bench --locked --bench batch -- --check || status=1
    return "$status"
}

if [ $# -eq 0 ]; then
    printf '%s\n' "${parts[@]}"
    exit 0
fi
for name in "$@"; do
    declare -F "part_${name//-/_}" >/dev/null || { echo "error: no part $name; there are: ${parts[*]}" >&2; exit 2; }
done

logs=$target/deep-logs
mkdir -p "$logs"
passed=0 failed=0 table=()
for name in "$@"; do
    name=${name//-/_}
    echo "=== $name"
    began=$SECONDS
    ("part_$name") 2>&1 | tee "$logs/$name.log"
    status=${PIPESTATUS[0]}
    case $status in
        0) word=passed passed=$((passed + 1)) ;;
        "$SKIP") word=SKIPPED ;;
        *) word=FAILED failed=$((failed + 1)) ;;
    esac
    table+=("$(printf '%-18s %-8s %5d s' "$name" "$word" $((SECONDS - began)))")
done
printf '\n%-18s %-8s %7s\n' part result time
printf '%s\n' "${table[@]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
