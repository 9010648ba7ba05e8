#!/usr/bin/env bash
# Every combination of the features `cuda` and `mock`, built and, where there is something to run, run. The library's tests turn `mock`
# on for themselves, so that theirs run as mock and as cuda,mock (which `cargo test` does); the worker's processes run as cuda. A
# production build (cuda alone, release) must hold nothing of the mock, and, where there is an nvcc, one image of the kernels for
# each architecture, with the entry points that it is to have. Last line: "N passed, N failed".
# covers: DEV-2
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

out=$target/features
mkdir -p "$out"
passed=0 failed=0

# The library: what clippy has not built already is built with tests below.
check "the library's own tests on the mock alone" \
    cargo test --locked -p vram-residency --no-default-features --features mock --lib --test contract
for features in "" mock cuda; do
    check "the worker with \"$features\"" cargo check --locked -p vram-worker --no-default-features --features "$features"
done
check "the worker's own tests without the mock" cargo test --locked -p vram-worker --no-default-features --features cuda --bins

# A production build, with kernels if they can be built here.
nvcc=${NVCC:-$(command -v nvcc || bash ci/nvcc.sh)} || nvcc=
keep() { # NAME, arguments of cargo build...: keeps worker and library
    cargo build --release --locked --message-format json-render-diagnostics "${@:2}" >"$out/messages" || return 1
    local library
    library=$(python3 - "$out/messages" <<'PY'
import json, sys
for line in open(sys.argv[1], encoding="utf-8"):
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["target"]["name"] == "vram_residency":
        print(*(name for name in message["filenames"] if name.endswith(".rlib")))
PY
    )
    cp "$library" "$out/$1.rlib" && cp "$target/release/vram-worker" "$out/$1"
}
production() { NVCC=$nvcc keep production -p vram-worker --no-default-features --features cuda; }
# What only the mock brings: symbols of its C code, a name of its own, places in its files. (The names of public items that a feature
# hides stay in a library, for the compiler's hints.)
trace='vram_mock_|vram_host_|MockDriver|driver/mock|manager/mock|cuda/mock'
no_trace() { # FILE
    if grep -aoE "$trace" "$1" | sort | uniq -c | grep .; then
        echo "error: $1 holds traces of the mock" >&2
        return 1
    fi
}
with_trace() { ! no_trace "$1"; } # the twin: a build that has the mock is found to have it

check "a production build" production
check "a build with the mock" keep mocked --bin vram-worker # as other checks build it
for kind in "" .rlib; do
    check "production${kind}: no trace of the mock" no_trace "$out/production$kind"
    check "with the mock${kind}: its traces are found" with_trace "$out/mocked$kind"
done

says() { # exit status, what it must say, arguments...
    local status
    "$out/production" "${@:3}" >"$out/said" 2>&1
    status=$?
    cat "$out/said"
    [ "$status" -eq "$1" ] && grep -qF -- "$2" "$out/said"
}
never_offers_it() { says 4 "" run && ! grep -qi mock "$out/said"; }
check "production: --device mock is refused with a sentence" \
    says 2 "this build has no mock device" run --device mock
if [ ! -e /dev/nvidia0 ]; then
    check "production: without a GPU it stops, and offers no mock" never_offers_it
fi

embedded_kernels() {
    NVCC=$nvcc some_tests cargo test --locked -p vram-residency --lib \
        the_embedded_images_are_native_and_for_every_architecture_that_is_promised
}
if [ -n "$nvcc" ]; then
    architectures=$(sed -n 's/^const ARCHITECTURES: &\[u32\] = &\[\(.*\)\];$/\1/p' build.rs | tr -d ' ')
    check "production: the kernels that are embedded" \
        python3 ci/images.py "$out/production" --architectures "$architectures" --self-test
    # `cargo test` embeds no kernels. What is embedded where there is an nvcc, the driver's own test opens on the stand-in.
    # covers: DEV-6
    check "the library's own test of the kernels that it embeds" embedded_kernels
else
    echo "SKIPPED features/kernels: there is no nvcc"
fi
rm -f "$out/log" "$out/said" "$out/messages" "$out/mocked" "$out/mocked.rlib"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
