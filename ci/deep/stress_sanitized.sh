#!/usr/bin/env bash
# The same as stress, the mock's C included, under the address sanitizer.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

CARGO_TARGET_DIR=$target/sanitize RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS=detect_leaks=0 \
    CC=clang CFLAGS="-fsanitize=address -fno-omit-frame-pointer" VRAM_RESIDENCY_STRESS_SECONDS=60 \
    some_tests cargo test --locked --release --target x86_64-unknown-linux-gnu -p vram-residency --test suite threads::
