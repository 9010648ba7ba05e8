#!/usr/bin/env bash
# Runs the models of tests/model.rs: VRAM_MODEL_ITERATIONS schedules of each (400 when unset).
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

# A folder of its own: every crate is built anew with the model checker's locks.
CARGO_TARGET_DIR=$target/model RUSTFLAGS="--cfg vram_model" VRAM_MODEL_ITERATIONS=${VRAM_MODEL_ITERATIONS:-400} \
    some_tests cargo test --locked -p vram-residency --test model
