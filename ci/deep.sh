#!/usr/bin/env bash
# Checks that take too long for every run: ci/deep.sh PART…   (no PART: all of them; `ci/deep.sh --list` names them)
# A part is a function: its comment says what it shows. One that cannot run here is SKIPPED, by name, and has not passed.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
mkdir -p "$target/deep"
export NEXTEST_PROFILE=long

tests() { cargo nextest run --locked -p vram-residency "$@"; }

# covers: ASR-3
part_mutants() { # no small change of a deciding module (.cargo/mutants.toml) goes unnoticed; SHARD=0/4 … 3/4 runs a quarter
    # Without the slowest tests, which would decide nothing else: a survivor is then tried with all of them by hand.
    CFLAGS=-O2 PROPTEST_CASES=32 PROPTEST_RNG_SEED=1 NEXTEST_PROFILE=mutants cargo mutants --test-tool nextest --minimum-test-timeout 60 \
        --sharding round-robin --shard "${SHARD:-0/1}" -o "$target/deep" -- --locked --lib --test suite \
        -E 'not test(/^(adoption::digests|audit::blocking|flips|limits|threads)::/)'
}
part_faults() { bash ci/faults.sh; } # each planted fault (ci/faults) is caught by the test that its promise names
# covers: ASR-3
part_coverage() { # at least 95 % of the library's lines and 88 % of its branches run in tests
    local run=(--branch --no-report --locked)
    rustup component list --installed | grep -q ^llvm-tools || skip coverage "rustup component add llvm-tools"
    # Branches are counted behind a switch that the stable compiler keeps for itself.
    export CARGO_TARGET_DIR=$target/coverage RUSTC_BOOTSTRAP=1 CARGO_INCREMENTAL=0 PROPTEST_RNG_SEED=1
    cargo llvm-cov clean --workspace
    cargo llvm-cov nextest "${run[@]}" --cargo-profile mutants -p vram-residency -E 'not binary(compile_fail)'
    # The scenarios call the worker, which is built with its own tests.
    cargo llvm-cov test "${run[@]}" --profile mutants -p vram-worker -p vram-residency-bdd --test worker --test bdd
    cargo llvm-cov report --profile mutants --json --summary-only --output-path "$target/deep/coverage.json" \
        --ignore-filename-regex 'tests\.rs$|/(bdd|worker|tests)/' --fail-under-lines 95
    python3 -c 'import json, sys
totals = json.load(open(sys.argv[1]))["data"][0]["totals"]
for what, least in ("lines", 95), ("branches", 88):
    print(what, totals[what]["percent"], "% of", totals[what]["count"])
    assert totals[what]["percent"] >= least' "$target/deep/coverage.json"
}
# covers: CON-2
part_race() { # no data race in library, mock and standard library under the thread sanitizer, which finds a planted one
    local nightly=${VRAM_RESIDENCY_NIGHTLY:-nightly}
    [ -f "$(rustc "+$nightly" --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ] ||
        skip race "rustup toolchain install $nightly --component rust-src"
    export CARGO_TARGET_DIR=$target/race RUSTFLAGS="-Zsanitizer=thread -Clink-arg=-rdynamic" RUSTUP_TOOLCHAIN=$nightly
    export CC=clang CFLAGS="-fsanitize=thread -fno-omit-frame-pointer" TSAN_OPTIONS="halt_on_error=1 exitcode=66 history_size=4"
    local build=(-Zbuild-std --target "$host" --release --no-fail-fast)
    export VRAM_RESIDENCY_STRESS_SECONDS=30
    tests "${build[@]}" --test planted_race --run-ignored only 2>&1 | tee "$target/deep/planted_race.log" || true
    grep -q 'WARNING: ThreadSanitizer: data race' "$target/deep/planted_race.log"
    tests "${build[@]}" --lib --test suite --test device -E 'not test(/^(flips|limits|properties|lying_device)::/)'
}
part_model() { VRAM_MODEL_ITERATIONS=20000 ci/check.sh model; } # whole managers under chosen orders of threads: 20,000 of each model
part_stress() { # a hundred threads and every operation on one manager, for a minute, and under the address sanitizer
    export VRAM_RESIDENCY_STRESS_SECONDS=60
    tests --release --test suite --test device -E 'test(/^(threads|soak)::/)'
    CARGO_TARGET_DIR=$target/sanitize RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 \
        CC=clang CFLAGS="-fsanitize=address -fno-omit-frame-pointer" tests --release --target "$host" --test suite -E 'test(/^threads::/)'
}
part_limits() { # shards on either side of 4 GiB with every byte hashed, one of 130 GiB, a kernel over more than 4 GiB
    [ "$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo)" -ge 8 ] || skip limits "8 GiB of memory are not available"
    tests --release -j 1 --run-ignored all --test suite --lib -E 'test(/^limits::/) | test(beyond_4_gib)'
}
part_timing() { # tags are compared in constant time, by statistics; a leaky twin is found out
    tests --release --lib --no-run
    taskset -c 0 cargo nextest run --locked --release -p vram-residency --lib -j 1 --run-ignored all -E 'test(/^keys::tests::timing/)'
}
part_properties() { env -u PROPTEST_RNG_SEED ci/check.sh unit; } # the random cases anew, with a seed of their own
part_fuzz() { PROPTEST_RNG_SEED=$RANDOM FUZZ_SECONDS=600 ci/check.sh fuzz; } # foreign input, ten minutes for each target, with a new seed
part_bench() { # the speeds that the requirements name
    cargo bench --locked --bench host_digest -- --check
    cargo bench --locked --bench fixed_cost -- --check
    cargo bench --locked --bench batch --no-run
    taskset -c 0 cargo bench --locked --bench batch -- --check
    tests --release --lib --no-run
    taskset -c 0 cargo nextest run --locked --release -p vram-residency --lib --no-capture --run-ignored all -E 'test(/^digest::keyed::tests::speed/)'
}
part_candle() { # a real engine on adopted weights, whose digest is that of the file
    bash ci/fetch-minilm.sh || skip candle "the model could not be fetched"
    local manifest=examples/candle-minilm/Cargo.toml model=.models/minilm digest
    digest=$(cargo run --release --locked -q --bin vram-worker -- digest --layout tensors "$model/model.safetensors")
    export CARGO_TARGET_DIR=$target/candle
    cargo fmt --manifest-path $manifest --check
    cargo clippy --locked --manifest-path $manifest --all-targets -- -D warnings
    cargo test --locked --manifest-path $manifest
    cargo run -q --locked --manifest-path $manifest -- $model | tee "$target/deep/candle.log"
    grep -q "^digest *${digest%% *}\$" "$target/deep/candle.log"
}
part_gpu_bundle() { bash ci/gpu-bundle.sh; } # what is taken to a GPU machine builds and is small enough

mapfile -t parts < <(sed -n 's/^part_\([a-z_]*\)() .*/\1/p' "$0")
[ "${1:-}" != --list ] || { sed -n 's/^part_\([a-z_]*\)() {.*# /\1: /p' "$0" && exit 0; }
[ $# -gt 0 ] || set -- "${parts[@]}"
run_steps part "$@"
