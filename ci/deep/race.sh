#!/usr/bin/env bash
# The crate's own threads, the standard library and the mock's C under the thread sanitizer; a planted race is found.
# covers: CON-2
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib.sh"

# The standard library is built with the sanitizer too: without its locks and reference counts the detector sees races where
# there are none. Its sources come with a nightly compiler. There is no list of suppressions.
toolchain=${VRAM_RESIDENCY_NIGHTLY:-nightly}
command -v clang >/dev/null || skip race "clang is not installed"
sysroot=$(rustc "+$toolchain" --print sysroot 2>/dev/null) || skip race "Rust $toolchain is not installed"
[ -f "$sysroot/lib/rustlib/src/rust/library/std/Cargo.toml" ] ||
    skip race "the sources of the standard library are missing (rustup component add rust-src --toolchain $toolchain)"
host=$(rustc "+$toolchain" -vV | sed -n 's/^host: //p')
# The stand-in for the CUDA driver is a library of its own, whose calls to the detector lead into the program that loads it. The
# detector sees its locks and its kernels; the rest of it, C++, is not what is examined here.
export CARGO_TARGET_DIR=$target/race RUSTFLAGS="-Zsanitizer=thread -Clink-arg=-rdynamic"
export CC=clang CFLAGS="-fsanitize=thread -fno-omit-frame-pointer"
export TSAN_OPTIONS="halt_on_error=1 exitcode=66 history_size=4" VRAM_RESIDENCY_STRESS_SECONDS=${VRAM_RESIDENCY_STRESS_SECONDS:-30}
suites=(--lib --test suite)
run() { cargo "+$toolchain" test -Zbuild-std --target "$host" --release --locked -p vram-residency "$@"; }

log=$target/deep/race.log
mkdir -p "$(dirname "$log")"
run "${suites[@]}" --test planted_race --test device --no-run || exit 1

# The detector is at work: on the mock's C, and on threads of Rust.
mock=$(find "$CARGO_TARGET_DIR/$host/release/build" -name libvram_mock.a -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)
nm "$mock" 2>/dev/null | grep -q ' U __tsan_write' || { echo "error: the mock was built without the thread sanitizer" >&2; exit 1; }
if run --test planted_race -- --ignored >"$log" 2>&1; then
    echo "error: the planted race was not found" >&2
    exit 1
fi
grep -q 'WARNING: ThreadSanitizer: data race' "$log" || { cat "$log"; echo "error: the planted race did not end the test" >&2; exit 1; }
echo "the planted race was found"

{ run "${suites[@]}" -- --skip flips:: --skip limits:: --skip properties:: --skip lying_device:: && VRAM_TEST_DEVICE=stand-in run --test device; } 2>&1 | tee "$log"
[ "${PIPESTATUS[0]}" -eq 0 ] || exit 1
! grep -q 'WARNING: ThreadSanitizer' "$log" || exit 1
awk '/^test result:/ { passed += $4 } END { print passed " tests without a data race" }' "$log"
