#!/usr/bin/env bash
# At least 95 % of the library's lines and 85 % of its branches run in tests, on the mock and on the stand-in for CUDA.
# covers: ASR-3
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

cargo_tool cargo-llvm-cov || exit 1
rustup component list --installed 2>/dev/null | grep -q '^llvm-tools' || {
    echo "error: llvm-tools is missing: rustup component add llvm-tools" >&2
    exit 1
}
# A folder of its own: only the project's crates are instrumented.
export CARGO_TARGET_DIR=$target/llvm-cov CARGO_INCREMENTAL=0 PROPTEST_RNG_SEED=1
settings=$(RUSTC_BOOTSTRAP=1 cargo llvm-cov show-env --sh --branch 2>/dev/null) || exit 1
eval "$settings"
# Branches are counted behind a switch that the stable compiler keeps for itself. Only the compiler is told, by a wrapper around the
# tool's own: dependencies look at the variable too, and must not turn their unstable parts on.
mkdir -p "$CARGO_TARGET_DIR"
# shellcheck disable=SC2016
printf '#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec "%s" "$@"\n' "$RUSTC_WRAPPER" >"$CARGO_TARGET_DIR/wrapper"
chmod +x "$CARGO_TARGET_DIR/wrapper"
export RUSTC_WRAPPER=$CARGO_TARGET_DIR/wrapper
cargo llvm-cov clean --profraw-only
out=$CARGO_TARGET_DIR/lcov.info

# Left out: what compiles other crates, what runs for a minute, what needs another build, and processes that die on purpose.
tests=()
for file in tests/*.rs tests/*/main.rs; do
    name=${file#tests/} name=${name%.rs} name=${name%/main}
    case $name in compile_fail | model | attacks | device) ;; *) tests+=(--test "$name") ;; esac
done
status=0
cargo test --locked --profile mutants --no-fail-fast -p vram-residency --lib "${tests[@]}" || status=1
for device in mock stand-in; do
    VRAM_TEST_DEVICE=$device cargo test --locked --profile mutants -p vram-residency --test device || status=1
    VRAM_TEST_DEVICE=$device cargo test --locked --profile mutants -p vram-residency-bdd --test bdd || status=1
done
[ "$status" -eq 0 ] || { echo "error: a suite failed, so what is covered is not known" >&2; exit 1; }
cargo llvm-cov report --profile mutants --lcov --output-path "$out" || exit 1
python3 ci/coverage.py "$out"
