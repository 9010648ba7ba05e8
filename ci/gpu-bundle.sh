#!/usr/bin/env bash
# Makes target/gpu-bundle: what a GPU machine without Rust needs to run the suites, attacks and benches. gpu-run.sh in it runs them.
# `ci/gpu-bundle.sh --quick` takes the debug build, without kernels: enough to try gpu-run.sh on the mock.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
set -e

bundle=$target/gpu-bundle build=(--locked) worker=$target/debug/vram-worker
rm -rf "$bundle"
mkdir -p "$bundle/bin"
git describe --always --dirty=+changes --abbrev=40 >"$bundle/commit"
cp -r ci/gpu-run.sh .config bdd/features Cargo.toml "$bundle"
if [ "${1:-}" = --quick ]; then
    cargo build --locked -p vram-worker
else
    NVCC=$(bash ci/nvcc.sh)
    # Nothing of this machine's folders in the programs.
    export RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$root=/vram-residency"
    export NVCC VRAM_RESIDENCY_BACKEND=cuda CARGO_PROFILE_RELEASE_STRIP=symbols CARGO_TARGET_DIR=$target/bundle
    build+=(--cargo-profile release) worker=$CARGO_TARGET_DIR/release/vram-worker
    cargo build --locked --release -p vram-worker --no-default-features --features cuda
fi
cp "$worker" "$(command -v cargo-nextest)" "$bundle/bin"
cargo nextest archive "${build[@]}" -p vram-residency -p vram-residency-bdd --test device --test bdd --bench device \
    --archive-file "$bundle/suites.tar.zst"
du -ah "$bundle" | sort -h
[ "${1:-}" = --quick ] || [ "$(du -sm "$bundle" | cut -f 1)" -le 60 ]
